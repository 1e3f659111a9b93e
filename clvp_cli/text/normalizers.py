"""The normalisers by name: `english` (the default), `hf`, `tortoise`.

A normaliser is a function from text to the text that the vocabulary can spell. This module only names them.
"""

from __future__ import annotations

from collections.abc import Callable

from clvp_cli.documents import short
from clvp_cli.errors import UsageError
from clvp_cli.text.english import english
from clvp_cli.text.published import hf, tortoise

Normalizer = Callable[[str], str]

NORMALIZERS: dict[str, Normalizer] = {"english": english, "hf": hf, "tortoise": tortoise}


def get_normalizer(name: str) -> Normalizer:
    """The normaliser of that name; UsageError for a name that is none."""
    if name not in NORMALIZERS:
        raise UsageError(f"no normaliser is called {short(name)}", hint=f"choose one of: {', '.join(NORMALIZERS)}")
    return NORMALIZERS[name]
