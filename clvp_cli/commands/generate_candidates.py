"""`clvp generate-candidates`: text and voice → N code sequences."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..errors import TextError, UsageError
from .inputs import TextLine, check_stdin, read_texts
from .jobs import Job, describe
from .options import (
    CONFIG,
    MODEL,
    NORMALIZER,
    SAMPLING,
    SEED,
    STRICT,
    Out,
    References,
    Resume,
    Run,
    Sentences,
    Text,
    TextFile,
    command,
)
from .outputs import STDOUT, check_candidates_output, check_inputs_stay, job_records
from .program import app

if TYPE_CHECKING:
    from ..pipeline import Clvp, Voice
    from ..records import Candidate

    Progress = Callable[[int, int], None] | None

log = logging.getLogger("clvp")

COLUMNS = ("line", "text", "index", "length", "stopped", "logprob", "codes", "error")


@command(app, "generate-candidates", MODEL, SEED, SAMPLING, NORMALIZER, CONFIG, STRICT)
def generate_candidates(
    run: Run,
    text: Text = None,
    text_file: TextFile = None,
    sentences: Sentences = False,
    references: References = None,
    out: Out = None,
    resume: Resume = False,
) -> None:
    """Sample N candidates of each text in the voice of the reference.

    \b
    clvp generate-candidates -t "A sentence to say." -r voice.wav -n 16 -o candidates.npz
    clvp generate-candidates -f lines.txt -r voice.wav -o - | clvp score -
    """
    check_stdin(text_file, *(references or []))
    texts = read_texts(text, text_file, sentences)
    check_candidates_output(out)
    check_inputs_stay([*(references or []), text_file], [out])
    records_out = job_records(out, numbered=texts[0].line is not None)
    if len(texts) > 1 and out not in (None, STDOUT) and records_out is None:
        raise UsageError(
            f"{out}: candidates of {len(texts)} texts go into one .jsonl", "name it OUT.jsonl, or use -o -"
        )
    check_resume(resume, records_out)
    clvp = run.clvp()
    voice = clvp.voice(references or [])
    n = run.settings.sampling.found
    run.output.notice(f"seed {run.settings.seed}, {n} candidates a text")
    if records_out:
        with Job(records_out, describe(run, "generate-candidates", references or []), n, resume) as job:
            left = job.left(texts)
            with run.output.progress("candidates", len(left) * n, out) as tick:
                records = job.keep(_records(clvp, left, voice, tick, alone=len(texts) == 1))
                run.deliver(records, COLUMNS, to_the_end=True)
        return
    path = None if out == STDOUT else out

    def kept(tick: Progress) -> Iterator[dict[str, Any]]:
        from ..io.candidates import write_candidates

        made: list[Candidate] = []
        records: Iterable[dict[str, Any]] = _records(clvp, texts, voice, tick, alone=len(texts) == 1, made=made)
        if path:  # written before stdout is, which may fail
            records, book = list(records), clvp.core.book
            if odd := [candidate.index for candidate in made if not book.holds(candidate.codes)]:
                log.warning("%s: left out: %s, with codes beyond %d", path, ", ".join(map(str, odd)), book.size - 1)
            whole = [candidate for candidate in made if candidate.index not in odd]
            write_candidates(path, whole, book, meta=provenance(clvp, texts[0].text))
        yield from records

    with run.output.progress("candidates", len(texts) * n, out) as tick:
        run.deliver(kept(tick), COLUMNS, None if path else out, to_the_end=bool(path))


def check_resume(resume: bool, records_out: str | None) -> None:
    """UsageError where there is nothing that could be resumed."""
    if resume and records_out is None:
        raise UsageError("--resume goes on with a .jsonl of many texts", "use it with -f FILE -o OUT.jsonl")


def _records(
    clvp: Clvp,
    texts: Sequence[TextLine],
    voice: Voice,
    tick: Progress,
    *,
    alone: bool,
    made: list[Candidate] | None = None,
) -> Iterator[dict[str, Any]]:
    """Records in the order of texts and indices, each as soon as those before it are there; bad texts inline."""
    for entry, candidates, error in spoken(clvp, texts, voice, tick, alone=alone):
        if error is not None:
            yield {**entry.fields(), "error": error.message}
        for candidate in candidates:
            if made is not None:
                made.append(candidate)
            yield {**entry.fields(), **candidate.record()}


def spoken(
    clvp: Clvp, texts: Sequence[TextLine], voice: Voice, tick: Progress, *, alone: bool
) -> Iterator[tuple[TextLine, Iterator[Candidate], TextError | None]]:
    """Each text with its candidates, as they come, or with what is wrong with it; raised where it is `alone`."""
    errors: dict[int, TextError] = {}
    for place, entry in enumerate(texts):
        try:
            clvp.ids(entry.text)
        except TextError as error:
            if alone:
                raise
            errors[place] = error
    good = [entry.text for place, entry in enumerate(texts) if place not in errors]
    found = in_order(clvp.candidates(good, voice, progress=tick), clvp.settings.sampling.found)
    groups = groupby(found, key=itemgetter(0))
    for place, entry in enumerate(texts):
        group = iter(()) if place in errors else next(groups)[1]
        yield entry, (candidate for _, candidate in group), errors.get(place)


def in_order(found: Iterator[tuple[int, Candidate]], n: int) -> Iterator[tuple[int, Candidate]]:
    """(text number, candidate) by number and index, n a text, each as soon as those before it are there."""
    waiting: dict[tuple[int, int], Candidate] = {}
    number, index = 0, 0
    for text, candidate in found:
        waiting[text, candidate.index] = candidate
        while (number, index) in waiting:
            yield number, waiting.pop((number, index))
            number, index = (number, index + 1) if index + 1 < n else (number + 1, 0)
    yield from ((text, waiting[text, place]) for text, place in sorted(waiting))  # a beam may have found fewer


def provenance(clvp: Clvp, text: str) -> dict[str, Any]:
    """What produced candidates: kept beside them in an .npz."""
    import dataclasses

    settings = clvp.settings
    return {
        "text": text,
        "model": clvp.core.name,
        "dtype": clvp.core.precision.name,
        "kernels": clvp.core.precision.kernels,
        "seed": settings.seed,
        "sampling": dataclasses.asdict(settings.sampling),
    }
