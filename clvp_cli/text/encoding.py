"""What a tokenizer returns: a dictionary of ids and masks, padded to one length and turned into arrays.

Owns padding, truncation and the conversion to numpy or torch; torch is imported only where it is asked for.
Knows nothing of text or vocabularies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clvp_cli.errors import TextError, UsageError
from clvp_cli.fields import Fields

PADDING = ("longest", "max_length", "do_not_pad")
TRUNCATION = ("longest_first", "only_first", "only_second", "do_not_truncate")


class BatchEncoding(Fields):
    """Fields by key or attribute: ``encoding["input_ids"]`` is ``encoding.input_ids``."""

    def to(self, device: Any) -> BatchEncoding:
        """Move the torch tensors, in place; anything else stays as it is."""
        for key, value in self.items():
            if hasattr(value, "to"):
                self[key] = value.to(device)
        return self

    def convert_to_tensors(self, tensor_type: str | None = None, prepend_batch_axis: bool = False) -> BatchEncoding:
        """Turn every field into an int64 array, in place: "np" or "pt"; None leaves lists.

        Raises:
            TextError: rows of several lengths.
            UsageError: a tensor type of another name.
        """
        if tensor_type is None:
            return self
        if tensor_type not in ("np", "pt"):
            raise UsageError(f"return_tensors is {tensor_type!r}", hint="choose None, 'np' or 'pt'")
        for key, value in self.items():
            self[key] = _as_array([value] if prepend_batch_axis else value, key, tensor_type)
        return self


def _as_array(rows: Any, key: str, tensor_type: str) -> Any:
    import numpy as np

    if isinstance(rows, list) and rows and isinstance(rows[0], list) and len({len(row) for row in rows}) > 1:
        raise TextError(f"the rows of {key} differ in length, so they make no array", hint="pass padding=True")
    array = np.asarray(rows, dtype=np.int64)
    if tensor_type == "np":
        return array
    import torch

    return torch.from_numpy(array.copy())


def padding_strategy(padding: bool | str | None) -> str:
    """The published spellings: True is "longest", False and None are "do_not_pad"."""
    strategy = padding if isinstance(padding, str) else "longest" if padding else "do_not_pad"
    if strategy not in PADDING:
        raise UsageError(f"padding is {padding!r}", hint=f"choose True, False or one of {', '.join(PADDING)}")
    return strategy


def truncation_strategy(truncation: bool | str | None) -> str:
    """The published spellings: True is "longest_first", False and None are "do_not_truncate"."""
    strategy = truncation if isinstance(truncation, str) else "longest_first" if truncation else "do_not_truncate"
    if strategy not in TRUNCATION:
        raise UsageError(f"truncation is {truncation!r}", hint=f"choose True, False or one of {', '.join(TRUNCATION)}")
    return strategy


def truncate(
    first: list[int], second: list[int] | None, excess: int, strategy: str, side: str
) -> tuple[list[int], list[int] | None]:
    """Drop ``excess`` ids: from the longer sequence each time, or from the one that the strategy names."""
    lengths = [len(first), len(second or [])]
    for _ in range(max(excess, 0)):
        if strategy == "longest_first":
            longer = 0 if second is None or lengths[0] > lengths[1] else 1
        else:
            longer = 0 if strategy == "only_first" else 1
        lengths[longer] = max(lengths[longer] - 1, 0)

    def cut(ids: list[int], length: int) -> list[int]:
        return ids[len(ids) - length :] if side == "left" else ids[:length]

    return cut(first, lengths[0]), None if second is None else cut(second, lengths[1])


def as_lists(encoded: Any) -> dict[str, Any]:
    """One dictionary of lists, from one of lists, arrays or tensors, or from a list of dictionaries."""
    if not isinstance(encoded, Mapping):
        encoded = {key: [row[key] for row in encoded] for key in encoded[0]} if encoded else {}
    if "input_ids" not in encoded:
        raise UsageError("nothing to pad: there is no input_ids field")
    return {key: _plain(value) for key, value in encoded.items()}


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def pad_rows(
    rows: dict[str, list[list[int]]], length: int | None, multiple: int | None, side: str, fill: Mapping[str, int]
) -> dict[str, list[list[int]]]:
    """Bring every row of every field to one length.

    Args:
        rows: field → rows of ids or flags, ``attention_mask`` among them or not.
        length: the length wanted; None for that of the longest row. Longer rows stay whole.
        multiple: round the length up to a multiple of this.
        side: "right" or "left".
        fill: field → what fills it up; 0 for a field not named.
    """
    target = max(map(len, rows["input_ids"]), default=0) if length is None else length
    if multiple:
        target = -(-target // multiple) * multiple

    def filled(row: Sequence[int], value: int) -> list[int]:
        missing = [value] * (target - len(row))
        return missing + list(row) if side == "left" else list(row) + missing

    return {key: [filled(row, fill.get(key, 0)) for row in field] for key, field in rows.items()}
