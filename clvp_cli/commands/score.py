"""`clvp score`: candidates of any origin and a text → ranked records."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError, TextError, UsageError
from .inputs import check_stdin, read_all_candidates, read_one_text
from .options import CONFIG, MODEL, NORMALIZER, SCORING, STRICT, Keep, Out, Run, Text, TextFile, command
from .outputs import check_inputs_stay, check_records_output
from .program import app

if TYPE_CHECKING:
    from ..pipeline import Clvp
    from ..records import Candidate, Ranked

log = logging.getLogger("clvp")

COLUMNS = (
    *("line", "text", "rank", "index", "source", "score", "ranked_by", "cosine"),
    *("signals.alignment", "length", "stopped", "error"),
)


@command(app, "score", MODEL, SCORING, NORMALIZER, CONFIG, STRICT)
def score(
    run: Run,
    candidates: Annotated[
        list[str], typer.Argument(metavar="CANDIDATES", help=".npy .npz .jsonl .parquet .txt, audio; - is stdin.")
    ],
    text: Text = None,
    text_file: TextFile = None,
    keep: Keep = None,
    order: Annotated[str, typer.Option("--order", metavar="ORDER", help="score (best first) | input")] = "score",
    out: Out = None,
) -> None:
    """Judge candidates against their text, best first.

    Without a text, each candidate's own record (.jsonl) must name it, and each text's candidates are ranked apart;
    records of texts that failed before come last, as they are.

    \b
    clvp score candidates.npy -t "What they should say." -k 1
    clvp generate-candidates -f lines.txt -r voice.wav -o - | clvp score -
    """
    if order not in ("score", "input"):
        raise UsageError(f"--order {order}: score or input is expected")
    if keep is not None and keep < 1:
        raise UsageError(f"-k {keep}: at least 1 is kept")
    check_stdin(text_file, *candidates)
    check_records_output(out)
    check_inputs_stay([*candidates, text_file], [out])
    given = read_one_text(text, text_file) if text is not None or text_file is not None else None
    clvp = run.clvp()
    clvp.check_ranking()
    found, failed = read_all_candidates(candidates, clvp)
    others = sum(candidate.extra.get("text", given) != given for candidate in found)
    if given is not None and others:
        log.warning("%d candidates name another text than the one that they are judged against", others)
    groups = group_by_text(found, given)
    fewest = min((len(members) for _, members in groups), default=keep or 0)
    if keep is not None and keep > fewest:
        raise UsageError(f"cannot keep {keep} of {fewest} candidates", "lower -k")
    run.deliver(chain(_records(clvp, groups, keep, order == "input"), failed), COLUMNS, out)


def group_by_text(candidates: Sequence[Candidate], text: str | None) -> list[tuple[str, list[Candidate]]]:
    """(text, its candidates) in the order of first appearance; InputError where a candidate names no text."""
    if text is not None:
        return [(text, list(candidates))] if candidates else []
    groups: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in candidates:
        said = candidate.extra.get("text")
        if not isinstance(said, str):
            raise InputError(f"{candidate.source} row {candidate.index}: names no text", 'give -t "…" or -f FILE')
        groups.setdefault((repr(candidate.extra.get("line")), said), []).append(candidate)
    return [(said, members) for (_, said), members in groups.items()]


def _records(
    clvp: Clvp, groups: Sequence[tuple[str, list[Candidate]]], keep: int | None, by_input: bool
) -> Iterator[dict[str, Any]]:
    for text, members in groups:
        try:
            ranked = clvp.rank(text, members)[:keep]
        except TextError as error:
            if len(groups) == 1:
                raise
            for candidate in members:
                known = {"index": candidate.index, "source": candidate.source, "text": text}
                yield {**candidate.extra, **known, "error": error.message}
            continue
        yield from (entry.record() for entry in (in_input_order(ranked, members) if by_input else ranked))


def in_input_order(ranked: Sequence[Ranked], candidates: Sequence[Candidate]) -> list[Ranked]:
    """The same entries in the order of their candidates."""
    place = {id(candidate): number for number, candidate in enumerate(candidates)}
    return sorted(ranked, key=lambda entry: place[id(entry.scored.candidate)])
