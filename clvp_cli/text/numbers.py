"""Whole numbers in English words: cardinals, ordinals, years, single digits.

Owns the number words and the three ways in which the normalisers join them. Knows nothing of the text around a
number; digits arrive as a string of 0-9 or as an int.
"""

from __future__ import annotations

_ONES = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "seventeen eighteen nineteen"
)
_TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = (
    "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion decillion "
    "undecillion"
)
ONES = _ONES.split()
TENS = _TENS.split()
SCALES = ["", *_SCALES.split()]
LONGEST_NAMED = 3 * len(SCALES)  # digits; a longer number is read digit by digit
LONGEST_TORTOISE = 36  # inflect's names end at decillion

_IRREGULAR_ORDINALS = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
_IRREGULAR_PLURALS = {"six": "sixes"}


def below_hundred(number: int) -> str:
    """0 to 99 in words: 21 → "twenty-one"."""
    if number < 20:
        return ONES[number]
    tens, ones = divmod(number, 10)
    return TENS[tens] + (f"-{ONES[ones]}" if ones else "")


def below_thousand(number: int, conjunction: str = "") -> str:
    """0 to 999 in words; ``conjunction`` ("and") stands between the hundreds and the rest."""
    hundreds, rest = divmod(number, 100)
    if not hundreds:
        return below_hundred(rest)
    words = [ONES[hundreds], "hundred"]
    if rest:
        words += [conjunction, below_hundred(rest)] if conjunction else [below_hundred(rest)]
    return " ".join(words)


def thousands(digits: str, conjunction: str = "") -> list[str]:
    """The three-digit groups that are not zero, in words, highest first: "1000005" → ["one million", "five"].

    ``digits`` has at most LONGEST_NAMED figures. Zero gives an empty list.
    """
    padded = digits.zfill(-(-len(digits) // 3) * 3)
    groups = [int(padded[start : start + 3]) for start in range(0, len(padded), 3)]
    named = []
    for scale, group in zip(SCALES[len(groups) - 1 :: -1], groups, strict=True):
        if group:
            named.append(below_thousand(group, conjunction) + (f" {scale}" if scale else ""))
    return named


def spell_digits(digits: str) -> str:
    """Every figure by itself: "007" → "zero zero seven"."""
    return " ".join(ONES[int(digit)] for digit in digits)


def cardinal(digits: str) -> str:
    """A whole number in the published style, "one thousand, two hundred thirty-four", at any length.

    A number with leading zeros, or one too long to have a name, is read figure by figure. Linear in the length.
    """
    if len(digits) > LONGEST_NAMED or (len(digits) > 1 and digits[0] == "0"):
        return spell_digits(digits)
    return ", ".join(thousands(digits)) or ONES[0]


def published_cardinal(number: int) -> str:
    """A whole number exactly as transformers' EnglishNormalizer reads it, its end of range included."""
    if number >= 10**18:
        return "number out of range"
    return ", ".join(thousands(str(number))) or ONES[0]


def standing_number(number: int) -> str | None:
    """The readings that transformers and Tortoise share for round years between 1000 and 3000, else None."""
    if not 1000 < number < 3000:
        return None
    if number == 2000:
        return "two thousand"
    if 2000 < number < 2010:
        return f"two thousand {below_hundred(number % 100)}"
    if number % 100 == 0:
        return f"{below_hundred(number // 100)} hundred"
    return None


def year(number: int) -> str:
    """A year from 1100 to 2099: 1905 → "nineteen oh five", 2024 → "twenty twenty-four", 1900 → "nineteen hundred"."""
    century, rest = divmod(number, 100)
    shared = standing_number(number)
    if shared:
        return shared
    return f"{below_hundred(century)} {'oh ' if rest < 10 else ''}{below_hundred(rest)}"


def tortoise_cardinal(digits: str, conjunction: str = "") -> str | None:
    """A whole number as Tortoise's inflect engine reads it; None where that engine gives up (over 36 figures).

    It joins groups by commas, but for a last group of one word: "one thousand five", "one thousand, one hundred".
    """
    digits = digits.lstrip("0")
    if len(digits) > LONGEST_TORTOISE:
        return None
    groups = thousands(digits, conjunction) if digits else [ONES[0]]
    last_is_one_word = len(groups) > 1 and int(digits[-3:]) in range(1, 100)
    if not last_is_one_word:
        return ", ".join(groups)
    joint = f" {conjunction} " if conjunction else " "
    return ", ".join(groups[:-1]) + joint + groups[-1]


def _split_last_word(words: str) -> tuple[str, str]:
    cut = max(words.rfind(" "), words.rfind("-")) + 1
    return words[:cut], words[cut:]


def ordinal(words: str) -> str:
    """The ordinal of a cardinal in words: "twenty-one" → "twenty-first", "one hundred" → "one hundredth"."""
    head, last = _split_last_word(words)
    if last.endswith("y"):
        return f"{head}{last[:-1]}ieth"
    return head + _IRREGULAR_ORDINALS.get(last, f"{last}th")


def plural(words: str) -> str:
    """The plural of a cardinal in words: "nineteen eighty" → "nineteen eighties"."""
    head, last = _split_last_word(words)
    if last.endswith("y"):
        return f"{head}{last[:-1]}ies"
    return head + _IRREGULAR_PLURALS.get(last, f"{last}s")
