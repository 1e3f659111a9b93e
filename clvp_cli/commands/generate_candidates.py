"""`clvp generate-candidates`: text and voice → N code sequences."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TextError, UsageError
from .inputs import TextLine, read_texts
from .options import CONFIG, MODEL, NORMALIZER, SAMPLING, SEED, STRICT, Out, References, Run, Text, TextFile, command
from .program import app

if TYPE_CHECKING:
    from ..pipeline import Clvp, Voice
    from ..records import Candidate

COLUMNS = ("line", "text", "index", "length", "stopped", "logprob", "codes", "error")


@command(app, "generate-candidates", MODEL, SEED, SAMPLING, NORMALIZER, CONFIG, STRICT)
def generate_candidates(
    run: Run,
    text: Text = None,
    text_file: TextFile = None,
    references: References = None,
    out: Out = None,
) -> None:
    """Sample N candidates of each text in the voice of the reference.

    \b
    clvp generate-candidates -t "A sentence to say." -r voice.wav -n 16 -o candidates.npz
    clvp generate-candidates -f lines.txt -r voice.wav -o - | clvp score -
    """
    texts = read_texts(text, text_file)
    many = len(texts) > 1
    if many and out and out != "-" and Path(out).suffix != ".jsonl":
        raise UsageError(
            f"{out}: candidates of {len(texts)} texts go into one .jsonl", "name it OUT.jsonl, or use -o -"
        )
    clvp = run.clvp()
    voice = clvp.voice(references or [])
    run.output.notice(f"seed {run.settings.seed}, {run.settings.sampling.n} candidates a text")
    made: list[Candidate] = []
    with run.output.progress("candidates", len(texts) * run.settings.sampling.n) as tick:
        run.deliver(
            _records(clvp, texts, voice, tick, made), COLUMNS, out if many or out == "-" else None, to_the_end=bool(out)
        )
    if out and out != "-" and not many:
        from ..io.candidates import write_candidates

        write_candidates(out, made, clvp.core.book, meta=provenance(clvp, texts[0].text))


def _records(
    clvp: Clvp,
    texts: Sequence[TextLine],
    voice: Voice,
    tick: Callable[[int, int], None] | None,
    made: list[Candidate],
) -> Iterator[dict[str, Any]]:
    """Records in the order of texts and indices, each as soon as those before it are there; bad texts inline."""
    good: list[TextLine] = []
    for entry in texts:
        try:
            clvp.ids(entry.text)
            good.append(entry)
        except TextError as error:
            if len(texts) == 1:
                raise
            yield {**entry.fields(), "error": error.message}
    found = clvp.candidates([entry.text for entry in good], voice, progress=tick)
    for number, candidate in in_order(found, clvp.settings.sampling.n):
        made.append(candidate)
        yield {**good[number].fields(), **candidate.record()}


def in_order(found: Iterator[tuple[int, Candidate]], n: int) -> Iterator[tuple[int, Candidate]]:
    """(text number, candidate) by number and index, n a text, each as soon as those before it are there."""
    waiting: dict[tuple[int, int], Candidate] = {}
    number, index = 0, 0
    for text, candidate in found:
        waiting[text, candidate.index] = candidate
        while (number, index) in waiting:
            yield number, waiting.pop((number, index))
            number, index = (number, index + 1) if index + 1 < n else (number + 1, 0)
    yield from ((text, waiting[text, place]) for text, place in sorted(waiting))  # a beam may have found fewer than n


def provenance(clvp: Clvp, text: str) -> dict[str, Any]:
    """What produced candidates: kept beside them in an .npz."""
    import dataclasses

    settings = clvp.settings
    return {
        "text": text,
        "model": clvp.core.path.name,
        "seed": settings.seed,
        "sampling": dataclasses.asdict(settings.sampling),
    }
