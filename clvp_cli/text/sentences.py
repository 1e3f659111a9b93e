"""Long texts: where one sentence ends and the next begins."""

from __future__ import annotations

import re

# Titles and the like, whose full stop ends no sentence.
_NOT_AN_END = re.compile(
    r"(?:^|[\s(\"'“‘])(?:mrs?|ms|dr|drs|st|co|jr|sr|maj|gen|rev|lt|hon|sgt|capt|esq|ltd|col|ft|vs|etc|e\.g|i\.e"
    r"|(?![ap]\.m)(?:[a-z]\.)*[a-z])\.$",
    re.IGNORECASE,
)
_NUMBER = re.compile(r"\bno\.$", re.IGNORECASE)  # before a digit
_END = re.compile(r"(?<![.?!…])[.?!…]++[\"'”’)\]]*+(?=\s)|\n\s*\n")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, in order; nothing but white space is lost.

    A sentence ends at . ? ! or … before white space, and at an empty line. It does not end after a title ("Dr."),
    initials ("J.", "U.S."), "No." before a number, or where a small letter goes on.
    """
    sentences, start = [], 0
    for match in _END.finditer(text):
        if match[0].strip() and not _ends(text, start, match):
            continue
        sentences.append(text[start : match.end()].strip())
        start = match.end()
    sentences.append(text[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _ends(text: str, start: int, match: re.Match[str]) -> bool:
    following = text[match.end() : match.end() + 80].lstrip()[:1]
    if following.islower():
        return False
    said = text[max(start, match.end() - 12) : match.end()]
    numbers = following.isdigit() and _NUMBER.search(said)
    return match[0] != "." or not (numbers or _NOT_AN_END.search(said))
