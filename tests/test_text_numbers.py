"""Whole numbers in words."""

from __future__ import annotations

import pytest

from clvp_cli.text import numbers


@pytest.mark.parametrize(
    ("digits", "words"),
    [
        ("0", "zero"),
        ("13", "thirteen"),
        ("40", "forty"),
        ("999", "nine hundred ninety-nine"),
        ("1000005", "one million, five"),
        ("100000", "one hundred thousand"),
        ("010", "zero one zero"),
    ],
)
def test_cardinal(digits: str, words: str) -> None:
    """Groups of three are joined by commas, without "and"."""
    assert numbers.cardinal(digits) == words


@pytest.mark.parametrize(
    ("words", "expected"),
    [("one", "first"), ("twelve", "twelfth"), ("twenty", "twentieth"), ("forty-two", "forty-second")],
)
def test_ordinal(words: str, expected: str) -> None:
    """The last word alone takes the ordinal's form."""
    assert numbers.ordinal(words) == expected


@pytest.mark.parametrize(
    ("number", "words"), [(1066, "ten sixty-six"), (1800, "eighteen hundred"), (2007, "two thousand seven")]
)
def test_year(number: int, words: str) -> None:
    """A year is read in pairs, but for round ones and the first of this millennium."""
    assert numbers.year(number) == words


def test_tortoise_cardinal_gives_up_beyond_decillions() -> None:
    """As inflect does, at more than 36 figures."""
    assert numbers.tortoise_cardinal("9" * 36) is not None
    assert numbers.tortoise_cardinal("9" * 37) is None
