"""`clvp encode` and `clvp decode`: audio ↔ codes, where the model has a codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from ..errors import AudioError, UsageError
from .inputs import check_stdin, read_all_candidates
from .options import CONFIG, MODEL, STRICT, Out, References, Run, command
from .outputs import STDOUT, check_candidates_output, check_file_output, fill
from .program import app

if TYPE_CHECKING:
    from ..pipeline import Clvp
    from ..records import Candidate


@command(app, "encode", MODEL, CONFIG, STRICT)
def encode(
    run: Run,
    audio: Annotated[list[str], typer.Argument(metavar="AUDIO", help="wav, flac, ogg, mp3; - is stdin.")],
    out: Out = None,
) -> None:
    """Turn audio into the codes that candidates are made of.

    \b
    clvp encode spoken.wav other.flac -o codes.npz
    """
    from ..io.candidates import write_candidates

    check_stdin(*audio)
    check_candidates_output(out)
    clvp = run.clvp()
    _ = clvp.core.codec  # is there one?
    made: list[Candidate] = []
    run.deliver(
        _encoded(clvp, audio, made),
        ("audio", "length", "codes", "error"),
        out if out == STDOUT else None,
        to_the_end=bool(out) and out != STDOUT,
    )
    if out and out != STDOUT and made:
        write_candidates(out, made, clvp.core.book, meta={"audio": audio, "model": clvp.core.path.name})


def _encoded(clvp: Clvp, audio: list[str], made: list[Candidate]) -> Iterator[dict[str, Any]]:
    import dataclasses

    for number, name in enumerate(audio):
        try:
            candidate = dataclasses.replace(clvp.encode(name), index=number, extra={"audio": name})
        except AudioError as error:
            if len(audio) == 1:
                raise
            yield {"audio": name, "error": error.message}
            continue
        made.append(candidate)
        yield candidate.record()


@command(app, "decode", MODEL, CONFIG)
def decode(
    run: Run,
    codes: Annotated[str, typer.Argument(metavar="CODES", help="A candidates file; - is stdin.")],
    out: Out = None,
    references: References = None,
) -> None:
    """Turn codes into audio: the first candidate, or one file each with {index} in the name.

    \b
    clvp decode best.npz -r voice.wav -o best.wav
    clvp decode candidates.npz -r voice.wav -o 'candidate-{index}.wav'
    """
    if not out or out == STDOUT:
        raise UsageError("where should the audio go?", "add -o OUT.wav, or -o 'OUT-{index}.wav' for every candidate")
    check_file_output(fill(out, index=0), ".wav")
    clvp = run.clvp()
    _ = clvp.core.codec  # is there one?
    found = read_all_candidates([codes], clvp)
    chosen = found if "{index}" in out else found[:1]
    reference = references[0] if references else None
    records = (
        {
            "index": candidate.index,
            "wav": path,
            "seconds": write_speech(path, clvp, candidate, reference),
            "length": candidate.length,
        }
        for candidate, path in ((c, fill(out, index=c.index)) for c in chosen)
    )
    run.deliver(records, ("index", "wav", "seconds", "length"), to_the_end=True)


def write_speech(path: str, clvp: Clvp, candidate: Candidate, reference: str | None) -> float:
    """Decode one candidate and write it as WAV; returns its seconds."""
    from ..audio.waveform import write_wav
    from ..io.streams import atomic_write

    samples, rate = clvp.speak(candidate, reference)
    with atomic_write(path) as file:
        write_wav(cast("BinaryIO", file), samples, rate)
    return round(len(samples) / rate, 3)
