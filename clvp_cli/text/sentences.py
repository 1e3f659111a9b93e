"""Long texts: where to cut them so that each part fits the model.

Owns sentence boundaries and the merging of sentences up to a limit; how long a part is, a caller's function says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

# Titles and the like, whose full stop ends no sentence.
_NOT_AN_END = re.compile(
    r"(?:^|[\s(\"'“‘])(?:mrs?|ms|dr|drs|st|co|jr|sr|maj|gen|rev|lt|hon|sgt|capt|esq|ltd|col|ft|no|vs|etc|e\.g|i\.e"
    r"|[a-z])\.$",
    re.IGNORECASE,
)
_END = re.compile(r"(?<![.?!…])[.?!…]++[\"'”’)\]]*+(?=\s)|\n\s*\n")
_PAUSE = re.compile(r"(?<=[,;:—–])\s+")


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, stripped, in order; nothing but white space is lost.

    A sentence ends at . ? ! or … before white space, and at an empty line. It does not end after a title ("Dr."),
    an initial ("J."), or where a small letter goes on.
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
    return match[0] != "." or not _NOT_AN_END.search(text[max(start, match.end() - 12) : match.end()])


def split_to_fit(text: str, length: Callable[[str], int], limit: int) -> list[str]:
    """The text in as few parts as its sentences allow, none longer than ``limit`` as ``length`` measures.

    Sentences stay whole where they fit; a longer one is cut at pauses, then between words, and a single word that is
    longer still in halves.

    Args:
        length: the number of ids of a part, for example ``lambda part: len(tokenizer.encode(part))``.
    """
    return _merge(_fitting(split_sentences(text), length, limit), length, limit)


def _fitting(sentences: Iterable[str], length: Callable[[str], int], limit: int) -> Iterable[str]:
    for sentence in sentences:
        if length(sentence) <= limit:
            yield sentence
            continue
        for divide in (_PAUSE.split, str.split, _halves):
            parts = divide(sentence)
            if len(parts) > 1:
                yield from _merge(_fitting(parts, length, limit), length, limit)
                break
        else:
            yield sentence


def _halves(word: str) -> list[str]:
    middle = len(word) // 2
    return [word[:middle], word[middle:]] if middle else [word]


def _merge(parts: Iterable[str], length: Callable[[str], int], limit: int) -> list[str]:
    """Neighbours joined by a blank while they fit; the length of a join is measured, not added up."""
    merged: list[str] = []
    for part in parts:
        joined = f"{merged[-1]} {part}" if merged else part
        if merged and length(joined) <= limit:
            merged[-1] = joined
        else:
            merged.append(part)
    return merged
