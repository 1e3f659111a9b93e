"""`clvp encode` and `clvp decode`: audio ↔ codes, where the model has a codec."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, cast

import typer

from ..errors import AudioError, CandidateError, UsageError
from .inputs import check_stdin, read_all_candidates
from .options import CONFIG, MODEL, STRICT, Out, References, Run, command
from .outputs import STDOUT, check_candidates_output, check_file_output, check_filled, check_inputs_stay, fill
from .program import app

if TYPE_CHECKING:
    from ..audio.waveform import Waveform
    from ..pipeline import Clvp
    from ..records import Candidate

log = logging.getLogger("clvp")


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
    check_inputs_stay(audio, [out])
    clvp = run.clvp()
    _ = clvp.core.codec  # is there one?
    path = None if out == STDOUT else out

    def kept() -> Iterator[dict[str, Any]]:
        made: list[Candidate] = []
        yield from _encoded(clvp, audio, made)
        if path and made:
            write_candidates(path, made, clvp.core.book, meta={"audio": audio, "model": clvp.core.name})

    run.deliver(kept(), ("audio", "length", "codes", "error"), None if path else out, to_the_end=bool(path))


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
    """Turn codes into audio: the first candidate, or one file each with {index}, {line} or both in the name.

    \b
    clvp decode best.npz -r voice.wav -o best.wav
    clvp decode candidates.npz -r voice.wav -o 'candidate-{index}.wav'
    clvp decode best.jsonl -r voice.wav -o 'line-{line}.wav'
    """
    if not out or out == STDOUT:
        raise UsageError("where should the audio go?", "add -o OUT.wav, or -o 'OUT-{index}.wav' for every candidate")
    check_stdin(codes, *(references or []))
    check_file_output(fill(out, index=0, line=0), ".wav")
    inputs = [codes, *(references or [])]
    check_inputs_stay(inputs, [out])
    clvp = run.clvp()
    _ = clvp.core.codec  # is there one?
    found, failed = read_all_candidates([codes], clvp)
    if not found:
        raise CandidateError(
            f"{codes}: each of its {len(failed)} records tells of a failure", "there is no sound in it"
        )
    paths = wav_names(out, found)
    check_inputs_stay(inputs, paths)
    clip = timbre(references or [])
    reference = None if clip is None else clvp.clip(clip)
    records = _decoded(clvp, paths, reference)
    run.deliver(records, ("index", "wav", "seconds", "length", "error"), to_the_end=True)


def _decoded(clvp: Clvp, paths: dict[str, Candidate], reference: Waveform | None) -> Iterator[dict[str, Any]]:
    for path, candidate in paths.items():
        try:
            seconds = write_speech(path, clvp, candidate, reference)
        except CandidateError as error:
            if len(paths) == 1:
                raise
            yield {"index": candidate.index, "error": error.message}
            continue
        yield {"index": candidate.index, "wav": path, "seconds": seconds, "length": candidate.length}


def wav_names(pattern: str, candidates: Sequence[Candidate]) -> dict[str, Candidate]:
    """The file of each candidate: {index} and {line} are its own; without them, the first candidate's alone.

    UsageError where two would be written to one file, or one names no line.
    """
    each = [name for name in ("index", "line") if f"{{{name}}}" in pattern]
    paths: dict[str, Candidate] = {}
    for candidate in candidates if each else candidates[:1]:
        line = candidate.extra.get("line")
        if "line" in each and type(line) is not int:
            raise UsageError(f"{pattern}: candidate {candidate.index} names no line", "put {index} into the name")
        path = fill(pattern, index=candidate.index, line=line if type(line) is int else None)
        check_filled(path)
        if path in paths:
            missing = "line" if "line" not in each else "index"
            raise UsageError(f"{path}: two candidates would be written to it", f"put {{{missing}}} into the name, too")
        paths[path] = candidate
    return paths


def timbre(references: Sequence[str]) -> str | None:
    """The clip whose voice the codec speaks in: the first with sound; None, said aloud if any were given, for none."""
    from ..io.voices import is_saved_voice

    for reference in references:
        if reference != STDOUT and not Path(reference).exists():
            raise AudioError(f"{reference}: no such file", "check the path of the voice")
    clips = [reference for reference in references if not is_saved_voice(reference)]
    if references and not clips:
        log.warning("a saved voice keeps no sound: the codec makes audio in its usual voice (-r CLIP.wav for another)")
    return clips[0] if clips else None


def write_speech(path: str, clvp: Clvp, candidate: Candidate, reference: Waveform | None) -> float:
    """Decode one candidate and write it as WAV; returns its seconds."""
    from ..audio.waveform import write_wav
    from ..io.streams import atomic_write

    samples, rate = clvp.speak(candidate, reference)
    with atomic_write(path) as file:
        write_wav(cast("BinaryIO", file), samples, rate)
    return round(len(samples) / rate, 3)
