"""The two published normalisers, quirks included: transformers' EnglishNormalizer and Tortoise's english_cleaners.

They exist so that the `hf` and `tortoise` profiles give the ids that those systems give. What is wrong in them stays
wrong here, on purpose; `english` is the place for what is right. Where the originals crash, these raise TextError.
Every pattern is anchored so that each run of figures is scanned once: same matches, linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from clvp_cli.errors import TextError
from clvp_cli.text import numbers

ABBREVIATIONS = {
    "mrs": "misess",
    "mr": "mister",
    "dr": "doctor",
    "st": "saint",
    "co": "company",
    "jr": "junior",
    "maj": "major",
    "gen": "general",
    "drs": "doctors",
    "rev": "reverend",
    "lt": "lieutenant",
    "hon": "honorable",
    "sgt": "sergeant",
    "capt": "captain",
    "esq": "esquire",
    "ltd": "limited",
    "col": "colonel",
    "ft": "fort",
}

# One after another, as the originals do: "st.co." becomes "saintco.", whose "co." no longer begins a word.
_ABBREVIATIONS = [(re.compile(rf"\b{short}\."), word) for short, word in ABBREVIATIONS.items()]
_COMMAS = re.compile(r"[0-9][0-9,]+[0-9]")
_DOLLARS = re.compile(r"\$([0-9.,]*[0-9])")
_DECIMAL = re.compile(r"(?<![0-9])([0-9]++)\.([0-9]+)")
_ORDINAL = re.compile(r"(?<![0-9])([0-9]++)(st|nd|rd|th)")
_NUMBER = re.compile(r"[0-9]+")

# Where anyascii, which this package uses, and Unidecode, which Tortoise uses and whose licence is the GPL, read a
# common sign differently: Unidecode's reading. Other letters may differ too, above all Greek and Cyrillic ones.
_UNIDECODE_READINGS = str.maketrans(
    {
        "£": "PS",
        "¢": "C/",
        "¥": "Y=",
        "§": "SS",
        "·": "*",
        "×": "x",
        "¼": " 1/4",
        "½": " 1/2",
        "¾": " 3/4",
        "—": "--",
        "―": "--",
        "‚": ",",
        "„": ",,",
        "\u200b": " ",
        "№": "No. ",
        "™": "(tm)",
        "℃": "degC",
        "℉": "degF",
    }
)


def _amount(amount: str) -> str:
    """The dollars of both originals: ".5" is five cents to them, and a stray comma is fatal."""
    parts = amount.split(".")
    if len(parts) > 2:
        return f"{amount} dollars"
    dollars = int(parts[0]) if parts[0] else 0
    cents = int(parts[1]) if len(parts) > 1 and parts[1] else 0
    spoken = [f"{n} {unit}{'' if n == 1 else 's'}" for n, unit in ((dollars, "dollar"), (cents, "cent")) if n]
    return ", ".join(spoken) or "zero dollars"


def _expand(text: str, ordinal: Callable[[re.Match[str]], str], number: Callable[[re.Match[str]], str]) -> str:
    """The steps that both originals share, on lower-case ASCII. Neither one's pound rule can ever fire there."""
    text = _COMMAS.sub(lambda match: match[0].replace(",", ""), text)
    text = _DOLLARS.sub(lambda match: _amount(match[1]), text)
    text = _DECIMAL.sub(r"\1 point \2", text)
    text = _ORDINAL.sub(ordinal, text)
    text = _NUMBER.sub(number, text)
    for pattern, word in _ABBREVIATIONS:
        text = pattern.sub(word, text)
    return re.sub(r"\s+", " ", text).replace('"', "")


def _hf_ordinal(match: re.Match[str]) -> str:
    number = int(match[1])
    teens = 10 <= number % 100 <= 20
    return numbers.published_cardinal(number) + ("th" if teens else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th"))


def _hf_number(match: re.Match[str]) -> str:
    number = int(match[0])
    return numbers.standing_number(number) or numbers.published_cardinal(number)


def hf(text: str) -> str:
    """Normalise exactly as transformers' EnglishNormalizer (4.46.3) does.

    Drops what is not ASCII, lowers, reads numbers, expands 18 abbreviations, collapses white space, deletes ``"``.

    Raises:
        TextError: where the original crashes: a comma inside a dollar amount ("$,5"), a number of over 4300 figures.
    """
    try:
        return _expand(text.encode("ascii", "ignore").decode("ascii").lower(), _hf_ordinal, _hf_number)
    except ValueError as error:
        raise _unreadable("hf", error) from error


def _tortoise_words(digits: str, conjunction: str = "") -> str:
    words = numbers.tortoise_cardinal(digits, conjunction)
    if words is None:
        raise ValueError(f"a number of {len(digits)} figures")
    return words


def _tortoise_ordinal(match: re.Match[str]) -> str:
    return numbers.ordinal(_tortoise_words(match[1], "and"))


def _tortoise_number(match: re.Match[str]) -> str:
    number = int(match[0])
    shared = numbers.standing_number(number)
    if shared:
        return shared
    return numbers.year(number) if 1000 < number < 3000 else _tortoise_words(match[0])


def tortoise(text: str) -> str:
    """Normalise as Tortoise's english_cleaners does: transliterate, lower, numbers ("nineteen oh five"), abbreviations.

    Transliterates by anyascii (ISC licence) with Unidecode's reading of the common signs; rarer letters may differ.

    Raises:
        TextError: where the original crashes: a comma inside a dollar amount, a number of over 36 figures.
    """
    from anyascii import anyascii

    try:
        plain = text if text.isascii() else anyascii(text.translate(_UNIDECODE_READINGS))
        return _expand(plain.lower(), _tortoise_ordinal, _tortoise_number)
    except ValueError as error:
        raise _unreadable("tortoise", error) from error


def _unreadable(name: str, error: ValueError) -> TextError:
    reason = str(error).splitlines()[0]
    return TextError(
        f"the {name} normaliser cannot read a number in the text ({reason[:120]})",
        hint="write the number in words, or use --normalizer english",
    )
