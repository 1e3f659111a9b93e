"""`clvp generate`: text and voice → the best of N, in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import TextError, UsageError
from .codec import write_speech
from .generate_candidates import in_order, provenance
from .inputs import TextLine, read_texts
from .options import (
    CONFIG,
    MODEL,
    NORMALIZER,
    SAMPLING,
    SCORING,
    SEED,
    STRICT,
    Out,
    References,
    Run,
    Text,
    TextFile,
    command,
)
from .program import app

if TYPE_CHECKING:
    from ..pipeline import Clvp, Voice
    from ..records import Candidate, Ranked

COLUMNS = (
    *("line", "text", "rank", "index", "score", "ranked_by", "cosine"),
    *("signals.alignment", "length", "stopped", "codes", "error"),
)


@command(app, "generate", MODEL, SEED, SAMPLING, SCORING, NORMALIZER, CONFIG, STRICT)
def generate(
    run: Run,
    text: Text = None,
    text_file: TextFile = None,
    references: References = None,
    keep: Annotated[int, typer.Option("-k", "--keep", help="Keep the best K.")] = 1,
    out: Out = None,
    save_candidates: Annotated[
        str | None, typer.Option("--save-candidates", help="Write all N candidates too.", show_default=False)
    ] = None,
    latents: Annotated[
        str | None, typer.Option("--latents", help="Write the winner's decoder latents (.npz).", show_default=False)
    ] = None,
    wav: Annotated[
        str | None, typer.Option("--wav", help="Write the winner as audio, with a codec.", show_default=False)
    ] = None,
) -> None:
    """Sample N candidates, judge them, keep the best.

    \b
    clvp generate -t "A sentence to say." -r voice.wav -n 16 -o best.npz --wav best.wav
    clvp generate -f lines.txt -r voice.wav -o best.jsonl --wav 'line-{line}.wav'
    """
    from ..io.candidates import write_candidates

    texts = read_texts(text, text_file)
    n = run.settings.sampling.n
    if not 1 <= keep <= n:
        raise UsageError(f"cannot keep {keep} of {n} candidates", "make -k at least 1 and at most -n")
    check_patterns(len(texts), {"-o": out, "--save-candidates": save_candidates, "--latents": latents, "--wav": wav})
    clvp = run.clvp()
    if wav:
        _ = clvp.core.codec  # before minutes of work: is there one?
    voice = clvp.voice(references or [])
    run.output.notice(f"seed {run.settings.seed}, the best {keep} of {n} candidates a text")

    def save(entry: TextLine, made: Sequence[Candidate], ranked: Sequence[Ranked]) -> None:
        """Write what was asked for of one text."""
        best, line = ranked[0].scored.candidate, entry.line
        meta, book = provenance(clvp, entry.text), clvp.core.book
        if out and out != "-" and not _is_records(out):
            write_candidates(fill(out, line), [r.scored.candidate for r in ranked[:keep]], book, meta=meta)
        if save_candidates:
            write_candidates(fill(save_candidates, line), made, book, meta=meta)
        if latents:
            write_latents(fill(latents, line), clvp, entry.text, voice, best)
        if wav:
            write_speech(fill(wav, line), clvp, best, references[0] if references else None)

    with run.output.progress("candidates", len(texts) * n) as tick:
        records = _records(clvp, texts, voice, tick, keep, save)
        shown = out if out and (out == "-" or _is_records(out)) else None
        run.deliver(records, COLUMNS, shown, to_the_end=bool(out or save_candidates or latents or wav))


def _is_records(path: str) -> bool:
    return path.endswith(".jsonl")


def fill(pattern: str, line: int | None) -> str:
    """The file of one text: {line} in a pattern is its line number."""
    return pattern if line is None else pattern.replace("{line}", str(line))


def check_patterns(texts: int, patterns: dict[str, str | None]) -> None:
    """UsageError where many texts would write one file over and over."""
    for option, path in patterns.items():
        if texts > 1 and path and path != "-" and "{line}" not in path and not (option == "-o" and _is_records(path)):
            raise UsageError(f"{option} {path}: {texts} texts would write the same file", "put {line} into its name")


def _records(
    clvp: Clvp, texts: Sequence[TextLine], voice: Voice, tick: Any, keep: int, save: Any
) -> Iterator[dict[str, Any]]:
    """The best records of each text in order; texts that cannot be spoken inline."""
    good: list[TextLine] = []
    for entry in texts:
        try:
            clvp.ids(entry.text)
            good.append(entry)
        except TextError as error:
            if len(texts) == 1:
                raise
            yield {**entry.fields(), "error": error.message}
    found = in_order(clvp.candidates([entry.text for entry in good], voice, progress=tick), clvp.settings.sampling.n)
    pending = next(found, None)
    for number, entry in enumerate(good):
        made: list[Candidate] = []
        while pending is not None and pending[0] == number:
            made.append(pending[1])
            pending = next(found, None) if len(made) < clvp.settings.sampling.n else None
        ranked = clvp.rank(entry.text, made)
        save(entry, made, ranked)
        yield from ({**entry.fields(), **r.record(with_codes=True)} for r in ranked[:keep])
        pending = pending or next(found, None)


def write_latents(path: str, clvp: Clvp, text: str, voice: Voice, candidate: Candidate) -> None:
    """The winner's decoder latents (T, D) and its codes, as .npz."""
    from ..io.arrays import write_npz

    made = clvp.latents(text, voice, candidate)
    write_npz(path, {"latents": made, "codes": candidate.codes})
