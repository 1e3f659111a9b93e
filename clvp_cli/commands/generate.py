"""`clvp generate`: text and voice → the best of N, in one go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import CandidateError, UsageError
from .codec import timbre, write_speech
from .generate_candidates import check_resume, provenance, spoken
from .inputs import TextLine, check_stdin, read_texts
from .jobs import Job, describe
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
    Resume,
    Run,
    Sentences,
    Text,
    TextFile,
    command,
)
from .outputs import (
    STDOUT,
    check_candidates_output,
    check_file_output,
    check_filled,
    check_inputs_stay,
    check_patterns,
    fill,
    is_records,
    job_records,
)
from .program import app

if TYPE_CHECKING:
    from ..audio.waveform import Waveform
    from ..pipeline import Clvp, Voice
    from ..records import Candidate, Ranked
    from .generate_candidates import Progress

COLUMNS = (
    *("line", "text", "rank", "index", "score", "ranked_by", "cosine"),
    *("signals.alignment", "length", "stopped", "error"),
)


@command(app, "generate", MODEL, SEED, SAMPLING, SCORING, NORMALIZER, CONFIG, STRICT)
def generate(
    run: Run,
    text: Text = None,
    text_file: TextFile = None,
    sentences: Sentences = False,
    references: References = None,
    keep: Annotated[int, typer.Option("-k", "--keep", metavar="K", help="Keep the best K.")] = 1,
    out: Out = None,
    save_candidates: Annotated[
        str | None,
        typer.Option("--save-candidates", metavar="OUT", help="Write all N candidates too.", show_default=False),
    ] = None,
    latents: Annotated[
        str | None,
        typer.Option("--latents", metavar="OUT", help="Write the winner's decoder latents (.npz).", show_default=False),
    ] = None,
    wav: Annotated[
        str | None,
        typer.Option(
            "--wav",
            metavar="OUT",
            help="The winner as audio, in the first clip's voice.",
            show_default=False,
        ),
    ] = None,
    resume: Resume = False,
) -> None:
    """Sample N candidates, judge them, keep the best.

    \b
    clvp generate -t "A sentence to say." -r voice.wav -n 16 -o best.npz --wav best.wav
    clvp generate -f lines.txt -r voice.wav -o best.jsonl --wav 'line-{line}.wav'
    """
    check_stdin(text_file, *(references or []))
    texts = read_texts(text, text_file, sentences)
    n = run.settings.sampling.found
    if not 1 <= keep <= n:
        raise UsageError(f"cannot keep {keep} of {n} candidates", "make -k at least 1, and at most -n and --beams")
    clip = timbre(references or []) if wav else None
    asked = Asked(keep, out, save_candidates, latents, wav)
    asked.check(texts)
    named = (fill(path, line=entry.line) for path in asked.files() for entry in texts)
    check_inputs_stay([*(references or []), text_file], named)
    records_out = job_records(out, numbered=texts[0].line is not None)
    check_resume(resume, records_out)
    clvp = run.clvp()
    clvp.check_ranking()
    if wav:
        _ = clvp.core.codec  # before minutes of work: is there one?
    pad, positions = run.settings.scoring.pad, clvp.core.config.decoder_config.max_position_embeddings
    if latents and isinstance(pad, int) and pad > positions:
        raise UsageError(f"--pad {pad}: --latents needs a position for each code, the decoder has {positions}")
    sound = None if clip is None else clvp.clip(clip)  # heard here, and spoken in later
    voice = clvp.voice([sound if sound and name == clip else name for name in references or []])
    asked = replace(asked, clip=sound)
    run.output.notice(f"seed {run.settings.seed}, the best {keep} of {n} candidates a text")
    alone = len(texts) == 1
    if records_out:
        about = describe(run, "generate", references or [], keep=keep, files=asked.files())
        with Job(records_out, about, keep, resume) as job:
            left = job.left(texts)
            with run.output.progress("candidates", len(left) * n, out) as tick:
                records = job.keep(_records(clvp, left, voice, tick, asked, alone=alone))
                run.deliver(records, COLUMNS, to_the_end=True)
        return
    with run.output.progress("candidates", len(texts) * n, out) as tick:
        records = _records(clvp, texts, voice, tick, asked, alone=alone)
        shown = out if out and (out == STDOUT or is_records(out)) else None
        run.deliver(records, COLUMNS, shown, to_the_end=any(path != STDOUT for path in asked.files()))


@dataclass(frozen=True)
class Asked:
    """What is kept of each text, and where; {line} in a name is the text's line number."""

    keep: int
    out: str | None
    save_candidates: str | None
    latents: str | None
    wav: str | None
    clip: Waveform | None = None  # whose voice the audio has

    def files(self) -> list[str]:
        """The names that were given."""
        return [path for path in (self.out, self.save_candidates, self.latents, self.wav) if path]

    def check(self, texts: Sequence[TextLine]) -> None:
        """Raise UsageError or OutputError now for what could not be written later."""
        names = {"-o": self.out, "--save-candidates": self.save_candidates, "--latents": self.latents}
        check_patterns(len(texts), names | {"--wav": self.wav})
        if STDOUT in (self.save_candidates, self.latents, self.wav):
            raise UsageError("records alone go to stdout", "name a file for what else is wanted; -o - is the records")
        line = texts[0].line
        first = [path and fill(path, line=line) for path in (self.out, self.save_candidates, self.latents, self.wav)]
        check_filled(*first)
        check_candidates_output(first[0])
        check_candidates_output(first[1])
        check_file_output(first[2], ".npz")
        check_file_output(first[3], ".wav")

    def save(
        self, clvp: Clvp, entry: TextLine, voice: Voice, made: Sequence[Candidate], ranked: Sequence[Ranked]
    ) -> None:
        """Write what was asked for of one text."""
        from ..io.candidates import write_candidates

        best, line = ranked[0].scored.candidate, entry.line
        meta, book = provenance(clvp, entry.text), clvp.core.book
        if self.save_candidates:
            write_candidates(fill(self.save_candidates, line=line), made, book, meta=meta)
        if self.out and self.out != STDOUT and not is_records(self.out):
            kept = [entry.scored.candidate for entry in ranked[: self.keep]]
            write_candidates(fill(self.out, line=line), kept, book, meta=meta)
        if self.latents:
            write_latents(fill(self.latents, line=line), clvp, entry.text, voice, best)
        if self.wav:
            write_speech(fill(self.wav, line=line), clvp, best, self.clip)


def _records(
    clvp: Clvp, texts: Sequence[TextLine], voice: Voice, tick: Progress, asked: Asked, *, alone: bool
) -> Iterator[dict[str, Any]]:
    """The best records of each text in order; texts that cannot be spoken inline."""
    for entry, candidates, error in spoken(clvp, texts, voice, tick, alone=alone):
        if error is not None:
            yield {**entry.fields(), "error": error.message}
            continue
        made = list(candidates)
        try:
            ranked = clvp.rank(entry.text, made)
            asked.save(clvp, entry, voice, made, ranked)
        except CandidateError as wrong:
            if alone:
                raise
            yield {**entry.fields(), "error": wrong.message}
            continue
        yield from ({**entry.fields(), **r.record(with_codes=True)} for r in ranked[: asked.keep])


def write_latents(path: str, clvp: Clvp, text: str, voice: Voice, candidate: Candidate) -> None:
    """The winner's decoder latents (T, D) and its codes, as .npz."""
    from ..io.arrays import write_npz

    made = clvp.latents(text, voice, candidate)
    write_npz(path, {"latents": made, "codes": candidate.codes})
