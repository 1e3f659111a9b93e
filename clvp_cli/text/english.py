"""The default normaliser: what the published ones do, and right where they are wrong.

On plain text (letters, simple punctuation, bare whole numbers) it gives exactly what `hf` gives, so that the ids, and
with them the scores, are the published ones. It differs where `hf` loses or garbles something: letters with accents,
typographic quotes and dashes, ordinals, money, decimals, clock times, years after a month or "in", signs, domain
names. Its output holds nothing but a-z, blank and !'(),-./:;? — everything that the vocabulary can spell.
Knows nothing of ids. Every pattern scans a run of characters once: linear time.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from clvp_cli.text import numbers
from clvp_cli.text.published import ABBREVIATIONS

_TYPOGRAPHY = str.maketrans(
    {
        **dict.fromkeys("’‘‛ʼ＇`´′", "'"),
        **dict.fromkeys("“”„‟«»″＂", '"'),
        **dict.fromkeys("‐‑‒–—―−", "-"),
        **dict.fromkeys("[{", "("),
        **dict.fromkeys("]}", ")"),
        "…": "...",
        "·": " ",
        "•": " ",
        "\u200b": "",
    }
)
_SIGNS = {
    "&": "and",
    "%": "percent",
    "+": "plus",
    "=": "equals",
    "@": "at",
    "×": "times",
    "÷": "divided by",
    "§": "section",
    "©": "copyright",
    "²": "squared",
    "³": "cubed",
    "°c": "degrees celsius",
    "°f": "degrees fahrenheit",
    "°": "degrees",
    "½": "a half",
    "¼": "a quarter",
    "¾": "three quarters",
    "$": "dollar",
    "£": "pound",
    "€": "euro",
    "¥": "yen",
    "¢": "cent",
}
_CURRENCIES = {  # sign: (one, several, one hundredth, several hundredths)
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "¢": ("cent", "cents", "", ""),
}
_MAGNITUDES = {"k": "thousand", "m": "million", "bn": "billion", "b": "billion"}
_MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
_SPOKEN_AS_IS = frozenset("".join(_SIGNS))  # signs beyond ASCII that a later step reads in words
_NEVER_SPOKEN = {"So", "Sk", "Cs", "Co", "Cn", "Cc", "Cf", "Mn", "Me"}  # pictures, marks, controls, unassigned

_RANGE = re.compile(r"(?<=[0-9])\s?–\s?(?=[0-9])")
_NUMERO = re.compile(r"\b(?:No|Nr)\.\s?(?=[0-9])|№\s?(?=[0-9])|(?<!\w)#(?=[0-9])")
_MIXED_FRACTION = re.compile(r"(?<=[0-9])\s?(?=[½¼¾])")
_THOUSANDS = re.compile(r"(?<![0-9])(?<![0-9],)[0-9]{1,3}(?:,[0-9]{3})++(?![0-9])")
_CLOCK = re.compile(r"(?<![\w:.,])([01]?[0-9]|2[0-4]):([0-5][0-9])(?![0-9:])(?=(\s?[ap]\.?m\b)?)")
_AMOUNT = r"([0-9]*+(?:\.[0-9]++)?)"
_MONEY = re.compile(
    rf"((?<![^\s(])-)?(?<![0-9])([$£€¥])\s?(?=\.?[0-9]){_AMOUNT}(?:\s?(thousand|million|billion|trillion)\b|(k|m|bn|b)\b)?"
)
_MONEY_AFTER = re.compile(r"(?<![0-9.])([0-9]++(?:\.[0-9]++)?)\s?([$£€¥¢])(?!\.?[0-9])")
_YEAR = re.compile(
    rf"\b((?:in|since|until|year|circa|(?:{_MONTHS})(?: [0-9]{{1,2}}(?:st|nd|rd|th)?,?)?),? )"
    r"(1[1-9][0-9]{2}|20[1-9][0-9])(?!\w|[.,:/-]?[0-9])"
)
_PLURAL = re.compile(r"(?<![\w.])(?:'(?=[0-9]{2}s))?([0-9]++)('?)s\b")
_ORDINAL = re.compile(r"(?<![0-9])([0-9]++)(?:st|nd|rd|th)(s?)\b")
_FEET = re.compile(r"(?<=[0-9])\s?ft\.")
_NUMBER = re.compile(r"((?<![^\s(])-)?((?<![^\s(-])\.)?(?<![0-9])([0-9]++)((?:\.[0-9]++)*+)")
_STREET = re.compile(r"(?<=[a-z] )st\.(?=\s*(?:$|[,;:)]))")
# Not inside a domain name or an address: "amazon.co.uk", "me@st.com".
_ABBREVIATION = re.compile(rf"(?<![\w.@/])({'|'.join(ABBREVIATIONS)})\.(?![a-z0-9])")
_SIGN = re.compile("|".join(re.escape(sign) for sign in _SIGNS))
_UNSPEAKABLE = re.compile(r"[^a-z !'(),\-./:;?]+")


def english(text: str) -> str:
    """Normalise English text for speech; never fails, and never strips the blanks at either end.

    Examples: "$1.50" → "one dollar, fifty cents", "21st" → "twenty-first", "3.14" → "three point one four",
    "café" → "cafe", "in 1984" → "in nineteen eighty-four" (a bare 1984 keeps the published plain reading).
    """
    text = _NUMERO.sub("number ", _RANGE.sub(" to ", text))
    text = _to_ascii(text).lower()
    text = _read_numbers(re.sub(r"\s+", " ", text))
    text = _STREET.sub("street", text)
    text = _ABBREVIATION.sub(lambda match: ABBREVIATIONS[match[1]], text)
    text = _SIGN.sub(lambda match: _spaced(match, _SIGNS[match[0]]), text)
    text = _UNSPEAKABLE.sub(_drop, text.replace('"', ""))
    return re.sub(r" +", " ", text)


def _to_ascii(text: str) -> str:
    """Typography to its ASCII form, other letters transliterated; signs with a spoken form stay for later."""
    text = _MIXED_FRACTION.sub(" and ", text).translate(_TYPOGRAPHY)
    return text if text.isascii() else "".join(map(_transliterate, text))


@lru_cache(maxsize=4096)
def _transliterate(character: str) -> str:
    if character.isascii() or character in _SPOKEN_AS_IS:
        return character
    if character.isspace():
        return " "
    if unicodedata.category(character) in _NEVER_SPOKEN:
        return ""
    from anyascii import anyascii

    return str(anyascii(character))


def _read_numbers(text: str) -> str:
    text = _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)
    text = _CLOCK.sub(_clock, text)
    text = _MONEY.sub(_money, text)
    text = _MONEY_AFTER.sub(lambda match: _spaced(match, _sum_of_money(match[1], match[2])), text)
    text = _YEAR.sub(lambda match: match[1] + numbers.year(int(match[2])), text)
    text = _PLURAL.sub(_plural, text)
    text = _ORDINAL.sub(lambda match: _spaced(match, numbers.ordinal(_whole(match[1])) + match[2]), text)
    text = _FEET.sub(" feet", text)
    return _NUMBER.sub(_number, text)


def _spaced(match: re.Match[str], words: str) -> str:
    """The words in place of the match, with a blank towards a neighbour that would run into them."""
    text, start, end = match.string, match.start(), match.end()
    left = start > 0 and not (text[start - 1].isspace() or text[start - 1] in "([{'\"-./:")
    right = end < len(text) and (text[end].isalnum() or text[end] in "$£€¥")
    return f"{' ' if left else ''}{words}{' ' if right else ''}"


def _drop(match: re.Match[str]) -> str:
    """What cannot be spoken leaves a blank where it kept two words apart ("snake_case"), else nothing."""
    text, start, end = match.string, match.start(), match.end()
    between_words = start > 0 and end < len(text) and text[start - 1].isalpha() and text[end].isalpha()
    return " " if between_words else ""


def _whole(digits: str) -> str:
    """A bare whole number, as `hf` reads it wherever `hf` can."""
    shared = numbers.standing_number(int(digits)) if len(digits) == 4 else None
    return shared or numbers.cardinal(digits)


def _decimal(amount: str) -> str:
    whole, _, fraction = amount.partition(".")
    words = _whole(whole) if whole else "zero"
    return f"{words} point {numbers.spell_digits(fraction)}" if fraction else words


def _clock(match: re.Match[str]) -> str:
    hour, minute = int(match[1]), int(match[2])
    words = numbers.below_hundred(hour)
    if minute:
        words += f" {'oh ' if minute < 10 else ''}{numbers.below_hundred(minute)}"
    elif match[3] is None:
        words += " o'clock"
    return _spaced(match, words)


def _money(match: re.Match[str]) -> str:
    minus, sign, amount, word, letter = match.groups()
    magnitude = word or _MAGNITUDES.get(letter or "")
    several = _CURRENCIES[sign][1]
    words = f"{_decimal(amount)} {magnitude} {several}" if magnitude else _sum_of_money(amount, sign)
    return _spaced(match, f"minus {words}" if minus else words)


def _sum_of_money(amount: str, sign: str) -> str:
    """ "1.5", "$" → "one dollar, fifty cents"; other than one or two decimals are read as a decimal number."""
    one, several, one_part, several_parts = _CURRENCIES[sign]
    whole, _, fraction = amount.partition(".")
    if fraction and (len(fraction) > 2 or not one_part):
        return f"{_decimal(amount)} {several}"
    whole, parts = whole or "0", int(fraction.ljust(2, "0") or 0)
    spoken = []
    if whole.strip("0") or not parts:
        spoken.append(f"{_whole(whole)} {one if whole == '1' else several}")
    if parts:
        spoken.append(f"{numbers.below_hundred(parts)} {one_part if parts == 1 else several_parts}")
    return ", ".join(spoken)


def _plural(match: re.Match[str]) -> str:
    """ "1980s" and "80's" are decades; "1984's" is a possessive."""
    digits, apostrophe = match[1], match[2]
    decade = len(digits) == 4 and digits.endswith("0") and 1100 <= int(digits) < 2100
    words = numbers.year(int(digits)) if decade else _whole(digits)
    if apostrophe and not digits.endswith("0"):
        return f"{words}'s"
    return numbers.plural(words)


def _number(match: re.Match[str]) -> str:
    minus, leading_point, digits, fractions = match.groups()
    if leading_point:
        words = f"point {numbers.spell_digits(digits)}"
        words += "".join(f" point {_whole(part)}" for part in fractions.split(".")[1:])
    elif fractions.count(".") == 1:
        words = _decimal(digits + fractions)
    else:  # a bare number, or a version such as 1.2.3
        words = " point ".join(_whole(part) for part in (digits + fractions).split("."))
    return _spaced(match, f"minus {words}" if minus else words)
