"""`clvp tokenize`: text → ids, and back. Loads no torch."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, TextError, UsageError
from .inputs import check_decoded, stdin_if_piped
from .options import CONFIG, MODEL, NORMALIZER, STRICT, Out, Run, TextFile, command
from .outputs import check_inputs_stay, check_records_output
from .program import app

if TYPE_CHECKING:
    from ..text.tokenizer import ClvpTokenizer

VOCABULARY = {"model": MODEL["model"]}


@command(app, "tokenize", VOCABULARY, CONFIG, NORMALIZER, STRICT)
def tokenize(
    run: Run,
    texts: Annotated[
        list[str] | None, typer.Argument(metavar="TEXT", help="Texts; blanks at their ends are kept.")
    ] = None,
    text_file: TextFile = None,
    decode: Annotated[bool, typer.Option("--decode", help="Read ids, one list a line, and print their text.")] = False,
    out: Out = None,
) -> None:
    """Turn text into token ids, one record a text.

    \b
    clvp tokenize "Hello world"
    cat lines.txt | clvp tokenize -f - | jq -c .ids
    clvp tokenize --decode "62 84 28 2 179 79"
    """
    from ..io.streams import read_text_lines

    check_records_output(out)
    source = text_file or (None if texts else stdin_if_piped())
    if not texts and source is None:
        raise UsageError("no text was given", 'clvp tokenize "Hello world", or -f FILE')
    check_inputs_stay([source], [out])
    check_decoded(*(texts or []))
    lines = chain(texts or [], read_text_lines(source) if source else [])
    tokenizer = run.clvp().core.tokenizer
    made = _decoded if decode else _encoded
    columns = ("ids", "text", "error") if decode else ("text", "normalized", "ids", "tokens", "error")
    alone = source is None and len(texts or []) == 1
    run.deliver((_record(made, tokenizer, line, number, alone) for number, line in enumerate(lines, 1)), columns, out)


def _record(
    made: Callable[[ClvpTokenizer, str], dict[str, Any]], tokenizer: ClvpTokenizer, line: str, number: int, alone: bool
) -> dict[str, Any]:
    """The record of a line, or what is wrong with it; raised where it is `alone`."""
    try:
        return made(tokenizer, line)
    except (TextError, InputError) as error:
        if alone:
            raise
        return {"line": number, "text": line, "error": error.message}


def _encoded(tokenizer: ClvpTokenizer, text: str) -> dict[str, Any]:
    ids = tokenizer.encode(text)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return {"text": text, "normalized": tokenizer.normalize(text), "ids": ids, "tokens": tokens}


def _decoded(tokenizer: ClvpTokenizer, line: str) -> dict[str, Any]:
    ids = list(_read_ids(line, len(tokenizer)))
    return {"ids": ids, "text": tokenizer.decode(ids)}


def _read_ids(line: str, size: int) -> Iterator[int]:
    """Ids of "1 2 3", "[1, 2, 3]" or a record with ids."""
    try:
        loaded = json.loads(line) if line.lstrip().startswith(("[", "{")) else _numbers(line)
    except (ValueError, RecursionError):
        loaded = None
    ids = loaded.get("ids") if isinstance(loaded, dict) else loaded
    if not isinstance(ids, list) or not all(isinstance(item, int | float) for item in ids):
        raise InputError(f"not a list of ids: {line[:60]!r}", "write 62 84 28, or [62, 84, 28]")
    for item in ids:
        if type(item) is not int or not 0 <= item < size:
            raise InputError(f"id {json.dumps(item)[:40]} is not in the vocabulary (0 … {size - 1})")
        yield item


def _numbers(line: str) -> list[int]:
    """The numbers of "1 2 3" or "1, 2, 3"; ValueError for anything else."""
    words = line.replace(",", " ").split()
    if not all(re.fullmatch("-?[0-9]+", word) for word in words):
        raise ValueError
    return [int(word) for word in words]
