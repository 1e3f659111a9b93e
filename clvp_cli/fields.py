"""A dictionary whose entries are attributes, as the published tokenizer and extractor return. Knows nothing else."""

from __future__ import annotations

from typing import Any


class Fields(dict[str, Any]):
    """Fields by key or attribute: `fields["input_ids"]` is `fields.input_ids`."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    @property
    def data(self) -> dict[str, Any]:
        """The fields as a plain dictionary."""
        return dict(self)
