"""The published normalisers, quirks included. Expected texts were taken from the originals."""

from __future__ import annotations

import pytest

from clvp_cli.errors import TextError, UsageError
from clvp_cli.text.normalizers import get_normalizer
from clvp_cli.text.published import hf, tortoise


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("Mr. and Mrs. Smith, Dr. No", "mister and misess smith, doctor no"),
        ("1st", "onest"),
        ("12th 22nd", "twelveth twenty-twond"),
        ("£5", "five"),
        ("$1.5", "one dollar, five cents"),
        ("$0", "zero dollars"),
        ("don’t café", "dont caf"),
        ("amazon.co.uk", "amazon.companyuk"),
        ("st.co.", "saintco."),
        ("1,2,3 and 1,000", "one hundred twenty-three and one thousand"),
        ("3.14", "three point fourteen"),
        (
            "1984 1900 2000 2005",
            "one thousand, nine hundred eighty-four nineteen hundred two thousand two thousand five",
        ),
        ("1000000000000000000", "number out of range"),
        (' "a"\n b ', " a b "),
    ],
)
def test_hf_reads_as_transformers_does(text: str, spoken: str) -> None:
    """`hf` keeps every quirk of transformers' EnglishNormalizer."""
    assert hf(text) == spoken


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        (
            "1984 1905 2024 1900 2000 2005",
            "nineteen eighty-four nineteen oh five twenty twenty-four nineteen hundred two thousand two thousand five",
        ),
        ("1st 21st 101st 1001st", "first twenty-first one hundred and first one thousand and first"),
        ("1005 10005 10105", "ten oh five ten thousand five ten thousand, one hundred five"),
        ("£5 don’t café—no", "psfive don't cafe--no"),
        ("$1.5 3.14", "one dollar, five cents three point fourteen"),
    ],
)
def test_tortoise_reads_as_tortoise_does(text: str, spoken: str) -> None:
    """`tortoise` transliterates, and reads years in pairs and ordinals in words."""
    assert tortoise(text) == spoken


@pytest.mark.parametrize("name", ["hf", "tortoise"])
@pytest.mark.parametrize("text", ["$,5", "9" * 5000])
def test_a_crash_of_the_original_is_an_error_with_advice(name: str, text: str) -> None:
    """Where the originals crash on a number, the error names the normaliser and says what to do."""
    with pytest.raises(TextError, match=name) as caught:
        get_normalizer(name)(text)
    assert caught.value.hint is not None
    assert "english" in caught.value.hint


def test_an_unknown_normaliser_is_a_usage_error() -> None:
    """A name that is none lists those that are."""
    with pytest.raises(UsageError) as caught:
        get_normalizer("french")
    assert caught.value.hint == "choose one of: english, hf, tortoise"
