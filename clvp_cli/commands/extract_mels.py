"""`clvp extract-mels`: audio → log-mel arrays. Loads no torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import AudioError, UsageError
from .inputs import check_stdin
from .options import CONFIG, MODEL, STRICT, Out, Run, command
from .outputs import STDOUT, check_file_output, check_inputs_stay
from .program import app

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..core import Core


@command(app, "extract-mels", {"model": MODEL["model"]}, CONFIG, STRICT)
def extract_mels(
    run: Run,
    audio: Annotated[list[str], typer.Argument(metavar="AUDIO", help="wav, flac, ogg, mp3; - is stdin.")],
    out: Out = None,
    seconds: Annotated[
        float | None, typer.Option("--seconds", metavar="X", min=0.05, max=3600, help="Pad or cut to so many (6).")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="The whole file, neither padded nor cut.")] = False,
) -> None:
    """Turn audio into the log-mel arrays (80, frames) that the model hears.

    \b
    clvp extract-mels voice.wav -o voice.npy
    clvp extract-mels a.wav b.flac --full -o mels.npz
    """
    check_stdin(*audio)
    if len(set(audio)) < len(audio):
        raise UsageError("a file was given twice", "name each once")
    if full and seconds is not None:
        raise UsageError("--seconds and --full exclude each other")
    suffix = Path(out).suffix.lower() if out and out != STDOUT else ""
    if out != STDOUT:
        check_file_output(out, ".npy", ".npz")
        check_inputs_stay(audio, [out])
    if suffix == ".npy" and len(audio) > 1:
        raise UsageError(f"{out}: one .npy holds one file, {len(audio)} were given", "write to an .npz")
    arrays: dict[str, NDArray[np.float32]] = {}
    core = run.clvp().core
    records = list(_mels(core, audio, None if full else seconds or core.mel_config.default_audio_length, arrays))
    if out and out != STDOUT and arrays:
        from ..io.arrays import write_npy, write_npz

        if suffix == ".npy":
            write_npy(out, next(iter(arrays.values())))
        else:
            write_npz(out, arrays)
    run.deliver(records, ("audio", "sample_rate", "seconds", "frames", "truncated", "error"))


def _mels(core: Core, audio: list[str], seconds: float | None, arrays: dict[str, Any]) -> Iterator[dict[str, Any]]:
    stem_of = {name: Path(name).stem if name != "-" else "stdin" for name in audio}
    stems = Counter(stem_of.values())
    for name, stem in stem_of.items():
        try:
            arrays[stem if stems[stem] < 2 and stem not in stem_of else name], record = _mel(core, name, seconds)
            yield record
        except AudioError as error:
            if len(audio) == 1:
                raise
            yield {"audio": name, "error": error.message}


def _mel(core: Core, name: str, seconds: float | None) -> tuple[NDArray[np.float32], dict[str, Any]]:
    from ..audio.mel import log_mel
    from ..audio.voice import fit_window
    from ..audio.waveform import read_audio

    clip = read_audio(name, sample_rate=core.mel_config.sampling_rate)
    length = len(clip.samples) if seconds is None else round(seconds * clip.sample_rate)
    mel = log_mel(fit_window(clip.samples, length), mel_norms=core.mel_norms, config=core.mel_config)
    record = {
        "audio": name,
        "sample_rate": clip.original_rate,
        "seconds": round(clip.seconds, 6),
        "frames": int(mel.shape[1]),
        "truncated": length < len(clip.samples),
    }
    return mel, record
