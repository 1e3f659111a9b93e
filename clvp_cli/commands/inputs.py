"""What commands read alike: texts from an option or a file, candidates from files of every kind."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import CandidateError, UsageError

if TYPE_CHECKING:
    from ..pipeline import Clvp
    from ..records import Candidate

AUDIO_SUFFIXES = {".wav", ".flac", ".ogg", ".opus", ".mp3"}


class TextLine(NamedTuple):
    """One text and its number: the line of its file, or of its sentences; None: the only one, from the command line."""

    text: str
    line: int | None

    def fields(self) -> dict[str, object]:
        """What a record says of its text when a file holds many."""
        return {} if self.line is None else {"line": self.line, "text": self.text}


def read_texts(text: str | None, text_file: str | None, sentences: bool = False) -> list[TextLine]:
    """The texts of -t or -f, empty lines of a file left out, or the sentences of the whole; UsageError for no text,
    or two."""
    if (text is None) == (text_file is None):
        raise UsageError(
            "one text is needed" if text is None else "-t and -f exclude each other", 'give -t "…" or -f FILE'
        )
    check_decoded(text)
    if text is not None and not sentences:
        return [TextLine(text, None)]
    from ..io.streams import read_text_lines

    found = [text] if text is not None else list(read_text_lines(str(text_file)))
    if sentences:
        from ..text.sentences import split_sentences

        found = [" ".join(sentence.split()) for sentence in split_sentences("\n".join(found))]
    lines = [TextLine(line, number) for number, line in enumerate(found, 1) if line.strip()]
    if not lines:
        raise UsageError(f"{text_file or 'the text'}: no text in it", "put one text on each line")
    return lines


def check_decoded(*texts: str | None) -> None:
    """UsageError for a text of the command line whose bytes the system could not read: letters of it would be lost."""
    for text in texts:
        if text and any("\ud800" <= letter <= "\udfff" for letter in text):
            raise UsageError(
                f"{text[:40]!a}: not text in the terminal's encoding", "write it in UTF-8, or give -f FILE"
            )


def read_one_text(text: str | None, text_file: str | None) -> str:
    """The single text of -t or -f."""
    texts = read_texts(text, text_file)
    if len(texts) > 1:
        raise UsageError(
            f"{text_file}: {len(texts)} texts, one is expected", "score the candidates of one text at a time"
        )
    return texts[0].text


def check_stdin(*sources: str | None) -> None:
    """Raise UsageError where more than one of the sources is stdin, which can be read once."""
    if sum(source == "-" for source in sources) > 1:
        raise UsageError("standard input can be read once", "name - only once, and files for the rest")


def read_all_candidates(sources: Sequence[str], clvp: Clvp) -> tuple[list[Candidate], list[dict[str, Any]]]:
    """Candidates of all sources in order, and the records of rows that failed before: an "error" in place of codes.

    Audio goes through the model's codec.
    """
    from ..io.candidates import candidate_kind, kind_of, read_candidates
    from ..io.streams import read_bytes

    found: list[Candidate] = []
    failed: list[dict[str, Any]] = []
    for source in sources:
        if Path(source).suffix.lower() in AUDIO_SUFFIXES:
            found.append(clvp.encode(source))
            continue
        data = None if Path(source).is_file() else read_bytes(source)  # a pipe can be read once
        kind = candidate_kind(source) if data is None else kind_of(data)
        if kind == "audio":  # from stdin, or under a name that does not say so
            found.append(clvp.encode(source if data is None else data, source))
        else:
            found.extend(read_candidates(source, clvp.core.book, data=data, failed=failed))
    if not found and not failed:
        raise CandidateError(f"{', '.join(sources)}: no candidates in it")
    return found, failed


def stdin_if_piped() -> str | None:
    """ "-" where something is piped in and nothing else was named."""
    return None if sys.stdin is None or sys.stdin.isatty() else "-"
