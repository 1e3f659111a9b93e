"""The default normaliser: right where the published ones are wrong, equal to `hf` on plain text."""

from __future__ import annotations

import random
import string
import time

import pytest

from clvp_cli.text.english import english
from clvp_cli.text.published import hf

SPEAKABLE = set(string.ascii_lowercase + " !'(),-./:;?")


@pytest.mark.parametrize(
    ("text", "spoken"),
    [
        ("1st 2nd 3rd 4th", "first second third fourth"),
        ("the 21st of may", "the twenty-first of may"),
        ("100th, 101st, 1,000th", "one hundredth, one hundred first, one thousandth"),
        ("12th 20th 30th 0th", "twelfth twentieth thirtieth zeroth"),
        ("two 3rds? 2/3rds", "two thirds? two/thirds"),
        ("$1.50 $1.5 $1 $2 $0.01 $.50", "one dollar, fifty cents " * 2 + "one dollar two dollars one cent fifty cents"),
        ("£5 £1 £1.01 £2,000.99", "five pounds one pound one pound, one penny two thousand pounds, ninety-nine pence"),
        ("€3.20 and 5€ 20¢", "three euros, twenty cents and five euros twenty cents"),
        ("-$5, $ 5 and $1.555", "minus five dollars, five dollars and one point five five five dollars"),
        ("$1.5 million, £5bn, $3k", "one point five million dollars, five billion pounds, three thousand dollars"),
        ("$,5", "dollar, five"),
        ("3.14 .5 1.2.3", "three point one four point five one point two point three"),
        ("-5 (-4) −3 3-5", "minus five (minus four) minus three three-five"),
        ("pages 3–5", "pages three to five"),
        ("007 and 0", "zero zero seven and zero"),
        ("3:30 3:05pm 3:00 3:00 pm", "three thirty three oh five pm three o'clock three pm"),
        ("in 1984, July 4, 1776", "in nineteen eighty-four, july four, seventeen seventy-six"),
        ("since 2024 in 1905", "since twenty twenty-four in nineteen oh five"),
        ("1980s 80's '90s 1900s", "nineteen eighties eighties nineties nineteen hundreds"),
        ("1984's end", "one thousand, nine hundred eighty-four's end"),
        ("50% of R&D", "fifty percent of r and d"),
        ("a@b.com C++ #5 No. 5", "a at b.com c plus plus number five number five"),
        ("20°C, 2½ cups, 5 ft. long", "twenty degrees celsius, two and a half cups, five feet long"),
        ("b2b, 3pm", "b two b, three pm"),
        ("don’t “say” ‘it’…", "don't say 'it'..."),
        ("café naïve Straße Æsir", "cafe naive strasse aesir"),
        ("cafe\u0301 ﬁne ５", "cafe fine five"),
        ("yes—no", "yes-no"),
        ("hi 😀 there™", "hi there"),
        ("[a] {b} snake_case *bold*", "(a) (b) snake case bold"),
        ("amazon.co.uk and Smith & co.", "amazon.co.uk and smith and company"),
        ("Dr. Who, 5 Main St., St. John", "doctor who, five main street, saint john"),
        ("a\x00b\x1cc\ud800", "a b c"),
    ],
)
def test_reads_what_the_published_normaliser_garbles(text: str, spoken: str) -> None:
    """Ordinals, money, decimals, times, years, signs, typography and accents are read as a person would."""
    assert english(text) == spoken.strip()


def test_reads_large_numbers_in_groups_and_longer_ones_digit_by_digit() -> None:
    """A number up to 39 figures has its names; a longer one is read figure by figure."""
    assert english("1000000000000000000") == "one quintillion"
    assert english("1" + "0" * 36) == "one undecillion"
    assert english("1" + "2" * 39) == "one " + " ".join(["two"] * 39)


def test_keeps_blanks_at_the_ends() -> None:
    """Leading and trailing white space becomes one blank and is not stripped."""
    assert english("  Hello \n") == " hello "


def test_equals_hf_on_plain_text() -> None:
    """Small letters, simple punctuation and bare whole numbers give exactly the published text."""
    plain = (
        "the cat don't well-known mr. dr. said, yes! no? (maybe) one; two: a/b 's end. 5 12 100 1000 1500 2000 2005 "
        '2024 12345 1,000,000 42. 7, 999999999999999999 "quote"'
    )
    words = plain.split()
    rng = random.Random(0)
    for _ in range(500):
        text = " ".join(rng.choice(words) for _ in range(rng.randint(1, 15)))
        assert english(text) == hf(text)


def test_gives_only_what_the_vocabulary_can_spell() -> None:
    """Whatever the text, the output has no character that would become [UNK]."""
    rng = random.Random(1)
    pools = [range(1, 128), range(128, 0x250), range(0x2000, 0x2200), range(0x1F600, 0x1F650), range(0x4E00, 0x4F00)]
    for _ in range(500):
        text = "".join(chr(rng.choice(rng.choice(pools))) for _ in range(40))
        assert set(english(text)) <= SPEAKABLE


@pytest.mark.parametrize("unit", ["1", "1,", ",000", "1.", "$", "1:", "'", "80's", "…", "3:30 $5 1st "])
def test_takes_linear_time(unit: str) -> None:
    """A quarter of a megabyte of anything takes seconds at worst; a quadratic pattern would take hours."""
    start = time.perf_counter()
    english(unit * (250_000 // len(unit)))
    assert time.perf_counter() - start < 10
