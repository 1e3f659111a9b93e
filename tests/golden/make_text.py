"""Golden texts: transformers' ClvpTokenizer (4.46.3) and Tortoise's VoiceBpeTokenizer (3.0.0), normalisers included."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from oracle import environment
from tortoise.utils.tokenizer import VoiceBpeTokenizer, english_cleaners
from transformers import ClvpTokenizer

TEXTS = [
    "Hello world", " Hello world", "This is an example text.", "", " ", "  two  blanks  ", "tab\tand\nnewline\r\nend",
    "It's they're we've I'm you'll he'd don't", "'these' and 'those'", "rock 'n' roll", "don’t “quote” me…",
    "\"Quoted\"",
    "Mrs. Smith met Mr. Jones, Dr. Who & Col. Mustard at St. Paul's.", "Acme co. vs. Widget Ltd. and Gen. Lee jr.",
    "the 1st, 2nd, 3rd, 4th, 11th, 12th, 13th, 21st, 22nd and 101st", "0 1 9 10 11 19 20 21 99 100 101 110 999",
    "1000 1001 1100 1234 1500 1999", "2000 2001 2009 2010 2020 2100 2999 3000 3001", "1,000 12,345 1,234,567",
    "12345678901234567", "$1 $2 $1.50 $0.05 $0 $1.5 $1,234.56", "$1.2.3", "£5 and £1,000", "€20 ¥300", "3.14 0.5 10.0",
    "1.2.3.4", "version 2.0.1a", "7am, 19:30, 24/7", "-5 degrees", "50% off!", "a/b\\c|d", "e-mail: a.b@c.org",
    "#1 *star*",
    "amazon.co.uk", "U.S.A. and N.A.T.O.", "café naïve résumé Zürich", "Ünïcödé ß æ ø", "日本語 текст", "emoji 🙂 here",
    "zero\u200bwidth", "non\u00a0breaking", "ALL CAPS", "MiXeD CaSe", "antidisestablishmentarianism",
    "zzzzzz qqqqq xkcd",
    "hyphen-ated well-known", "ellipsis... and?! really?!", "(parenthesis) [bracket] {brace}", "[SPACE] [STOP] [UNK]",
    "<|endoftext|>", "a [STOP] b", "semi;colon:colon", "_underscore_ ^caret~", "line one.\n\nLine two.",
    "The quick brown fox jumps over the lazy dog.", "ft. lt. hon. sgt. capt. esq. maj. rev. drs.", "Fort ft.worth",
    "$,5", "a $ sign alone", "1,2,3", "10,000,000.00", "the year 1984 and 2024", "room 101b", "1000000000000000000",
]  # fmt: skip


def make(directory: Path) -> None:
    """Write text.json: for each text what both systems make of it, or the name of the error that they die of."""
    with tempfile.TemporaryDirectory() as folder:
        files = environment.write_published_vocabulary(Path(folder))
        published = ClvpTokenizer(str(files / "vocab.json"), str(files / "merges.txt"))
    decode = partial(published.decode, clean_up_tokenization_spaces=True)  # [SPACE] becomes a blank
    tortoise = VoiceBpeTokenizer()
    cases = []
    for text in TEXTS:
        hf = _case(published.normalizer, lambda text: published(text)["input_ids"], decode, text)
        own = _case(english_cleaners, tortoise.encode, tortoise.decode, text)
        cases.append({"text": text, "hf": hf, "tortoise": own})
    lines = ",\n".join(json.dumps(case) for case in cases)
    (directory / "text.json").write_text(f"[\n{lines}\n]\n", "utf-8")


def _case(
    normalise: Callable[[str], str], encode: Callable[[str], Any], decode: Callable[[Any], str], text: str
) -> dict[str, Any]:
    try:
        ids = list(encode(text))
        return {"normalized": normalise(text), "ids": ids, "decoded": decode(ids)}
    except Exception as error:  # what the reference dies of is part of the record
        return {"error": type(error).__name__}
