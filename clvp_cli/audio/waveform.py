"""Sound in and out: any file that libsndfile reads → mono float32 at one rate, and back to 16-bit WAV.

Owns opening, decoding, down-mixing, resampling and the checks that keep a damaged or hostile file from becoming
features or filling the memory. It knows nothing of mels, models or where a result goes.
"""

from __future__ import annotations

import io
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from clvp_cli.audio.containers import missing_bytes, mp3_samples
from clvp_cli.errors import AudioError, OutputError

Samples = npt.NDArray[np.float32]
Source = str | Path | bytes | BinaryIO

SAMPLE_RATE = 22050  # Hz, what every published model hears
MAX_SECONDS = 600.0
ACCEPTED = "accepted are WAV, FLAC, Ogg (Vorbis, Opus), MP3 and AIFF"
RATES = range(1_000, 768_001)  # Hz; anything outside is a damaged header
MAX_PEAK = 32.0  # float files overshoot ±1 a little; beyond this they hold unscaled integers
SILENCE_PEAK = 2e-4  # -74 dB of full scale, about 6 steps of 16 bit
STREAM_BYTES = 512 * 2**20  # most that is read from something without an end
BLOCK_SAMPLES = 2**19  # decoded at a time, over all channels
MP3_MARGIN = 8 * 1152  # samples that an encoder adds at both ends
UNKNOWN = 2**62  # frames; a FLAC stream of unknown length promises 2^63 - 1


@dataclass(frozen=True, eq=False)
class Waveform:
    """Mono sound. `samples` (n,) float32 about ±1 at `sample_rate` Hz; the rest says where it came from."""

    samples: Samples
    sample_rate: int
    source: str
    original_rate: int
    channels: int

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.samples) / self.sample_rate


def source_name(source: Source) -> str:
    """What to call a source in a message."""
    if isinstance(source, (str, Path)):
        return "standard input" if str(source) == "-" else str(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return f"audio of {len(source)} bytes"
    return str(getattr(source, "name", "audio stream"))


def read_audio(
    source: Source,
    *,
    sample_rate: int = SAMPLE_RATE,
    max_seconds: float | None = MAX_SECONDS,
    require_sound: bool = False,
) -> Waveform:
    """Read a sound file as mono float32 at `sample_rate`.

    Integer samples are scaled to ±1, channels averaged, other rates resampled (soxr, high quality, as librosa's
    "soxr_hq"). Decoding goes block by block and stops at the limit, so memory is bounded whatever a header claims.

    Args:
        source: a path, "-" for standard input, a file's bytes, or a binary stream (read from its beginning).
        max_seconds: longer audio is an error; None for no limit.
        require_sound: silence is an error too, as for a reference voice.

    Raises:
        AudioError: no such file, a directory, empty, of no accepted kind, cut short, an absurd rate, not finite,
            unscaled, too long, or silent where sound is required.
    """
    where = source_name(source)
    with _opened(source, where) as file:
        size = file.seek(0, io.SEEK_END)
        if not size:
            raise AudioError(f"{where}: the file is empty", f"give a sound file; {ACCEPTED}")
        missing = missing_bytes(file, size)
        if missing:
            raise _cut_short(where, f"{missing} bytes are missing at its end")
        file.seek(0)
        waveform = _decode(file, where, sample_rate, max_seconds)
    if require_sound and is_silent(waveform.samples):
        raise AudioError(f"{where}: only silence ({waveform.seconds:.1f} s)", "give a clip in which someone speaks")
    return waveform


def is_silent(samples: npt.NDArray[np.floating[Any]]) -> bool:
    """Whether nothing moves by more than a few steps of 16 bit; a constant offset is silence."""
    return bool(np.ptp(samples) < 2 * SILENCE_PEAK)


def _cut_short(where: str, detail: str) -> AudioError:
    return AudioError(f"{where}: the file is cut short: {detail}", "copy or export it again")


@contextmanager
def _opened(source: Source, where: str) -> Iterator[BinaryIO]:
    """A seekable stream over any source; what cannot seek is read into memory, up to a limit."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        with _in_memory(source) as file:
            yield file
    elif isinstance(source, (str, Path)) and str(source) != "-":
        try:
            file = Path(source).open("rb")  # noqa: SIM115 - closed below; errors of the body are not open's
        except FileNotFoundError as error:
            raise AudioError(f"{where}: no such file", "check the path of the audio file") from error
        except IsADirectoryError as error:
            raise AudioError(f"{where}: a directory, not an audio file", "name the sound files in it") from error
        except (OSError, ValueError) as error:
            raise AudioError(f"{where}: cannot be opened: {getattr(error, 'strerror', None) or error}") from error
        with file, nullcontext(file) if file.seekable() else _buffered(file, where) as whole:
            yield whole
    else:
        named = isinstance(source, (str, Path))
        if named and sys.stdin is None:
            raise AudioError("stdin is closed", "pipe a sound file in, or name one")
        stream: Any = sys.stdin.buffer if named else source
        with nullcontext(stream) if getattr(stream, "seekable", bool)() else _buffered(stream, where) as file:
            yield file


def _buffered(stream: BinaryIO, where: str) -> BinaryIO:
    data = stream.read(STREAM_BYTES + 1)
    if not isinstance(data, bytes):
        raise AudioError(f"{where}: a text stream", "open it in binary mode")
    if len(data) > STREAM_BYTES:
        raise AudioError(f"{where}: more than {STREAM_BYTES >> 20} MiB", "save it to a file and cut out what you need")
    return _in_memory(data)


def _in_memory(data: bytes | bytearray | memoryview) -> BinaryIO:
    """A file of these bytes; it has a descriptor (see `_steady`) where the system has files in memory."""
    if not hasattr(os, "memfd_create"):
        return io.BytesIO(data)
    number = os.memfd_create("sound")
    with os.fdopen(number, "wb", closefd=False) as file:
        file.write(data)
    return os.fdopen(number, "rb")


def _decode(file: BinaryIO, where: str, sample_rate: int, max_seconds: float | None) -> Waveform:
    """Decode, down-mix and resample an opened file, block by block."""
    import soundfile

    held, told = mp3_samples(file)  # 0 for every other format
    try:
        sound = soundfile.SoundFile(_steady(file), closefd=False)
    except (soundfile.LibsndfileError, TypeError) as error:  # TypeError: headerless samples, by the name's ending
        raise AudioError(f"{where}: not a sound file that can be read", ACCEPTED) from error
    if sound.frames >= UNKNOWN:
        sound.seekable = lambda: False  # it would seek after each read, and find no end
    with sound:
        rate, channels = int(sound.samplerate), int(sound.channels)
        if rate not in RATES:
            raise AudioError(f"{where}: a sample rate of {rate} Hz makes no sense", "the header may be damaged")
        limit = None if max_seconds is None else int(max_seconds * rate)
        promised = int(sound.frames) if told or not held else 0  # libsndfile guesses it from the first frame's size
        blocks = _mono_blocks(sound, where, limit, promised, held)
        pieces = list(blocks if rate == sample_rate else _resampled(blocks, rate, sample_rate))
    samples = np.concatenate(pieces) if pieces else np.zeros(0, np.float32)
    if not samples.size:
        raise AudioError(f"{where}: holds no samples", "record or export it again")
    return Waveform(samples, sample_rate, where, rate, channels)


class _Steady:
    """A stream whose faults do not come up in libsndfile's callbacks, which would print them and go on."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell, self.read = file, file.tell, file.read

    def seek(self, offset: int, whence: int = 0) -> int:
        with suppress(ValueError, OSError, OverflowError):  # a damaged header points anywhere
            self.file.seek(offset, whence)
        return self.file.tell()


def _steady(file: BinaryIO) -> Any:
    """What libsndfile is to read: a file's own descriptor where there is one, so that Ctrl-C finds no callback."""
    if isinstance(file, io.BufferedReader) and isinstance(file.raw, io.FileIO):
        os.lseek(file.fileno(), 0, os.SEEK_SET)
        return file.fileno()
    file.seek(0)
    return _Steady(file)


def _mono_blocks(sound: Any, where: str, limit: int | None, promised: int, held: int) -> Iterator[Samples]:
    """Decode in bounded blocks; every block is checked as it comes. `limit`, `promised` and `held` are in frames."""
    import soundfile

    block = max(1, BLOCK_SAMPLES // sound.channels)
    done = 0
    while True:
        try:
            frames = sound.read(block, dtype="float32", always_2d=True)
        except soundfile.LibsndfileError as error:
            raise AudioError(
                f"{where}: damaged or cut short, beyond {done / sound.samplerate:.1f} s", "export it again"
            ) from error
        if not len(frames):
            break
        done += len(frames)
        if limit is not None and done > limit:
            raise AudioError(
                f"{where}: longer than {limit / sound.samplerate:g} s", "cut out the part you need, or raise the limit"
            )
        with np.errstate(all="ignore"):  # infinities are found below
            mono = frames.mean(axis=1, dtype=np.float32)
        yield check_samples(mono, where)
    if done < promised < UNKNOWN:
        raise _cut_short(where, f"{done / sound.samplerate:.1f} of {promised / sound.samplerate:.1f} s can be read")
    if done < held - MP3_MARGIN:
        raise AudioError(
            f"{where}: only {done / sound.samplerate:.1f} of {held / sound.samplerate:.1f} s can be read of this MP3, "
            "whose header tells no or another length",
            "convert it to WAV or FLAC",
        )


def _resampled(blocks: Iterator[Samples], rate: int, sample_rate: int) -> Iterator[Samples]:
    """Resample a stream of blocks; the whole is ceil(n · ratio) long, as librosa makes it."""
    import soxr

    stream = soxr.ResampleStream(rate, sample_rate, 1, dtype="float32", quality="HQ")
    taken = given = 0
    for block in blocks:
        taken += len(block)
        piece = stream.resample_chunk(block)
        given += len(piece)
        yield piece
    wanted = -(-taken * sample_rate // rate)
    rest = stream.resample_chunk(np.zeros(0, np.float32), last=True)[: wanted - given]
    yield np.pad(rest, (0, wanted - given - len(rest)))


def check_samples(samples: npt.NDArray[np.floating[Any]], where: str) -> Samples:
    """Finite samples about ±1 as float32.

    Raises:
        AudioError: NaN, infinity, or values that are integers nobody scaled.
    """
    peak = float(np.abs(samples).max(initial=0.0))
    if not np.isfinite(peak):
        raise AudioError(f"{where}: holds NaN or infinite samples", "export it again as 16-bit WAV or FLAC")
    if peak > MAX_PEAK:
        raise AudioError(f"{where}: samples reach {peak:g}; floats lie within ±1", "divide by the integer full scale")
    return samples.astype(np.float32, copy=False)


def write_wav(path_or_file: str | Path | BinaryIO, samples: npt.ArrayLike, rate: int = SAMPLE_RATE) -> None:
    """Write mono 16-bit WAV, clipped at full scale. Never seeks, so a pipe or an atomic writer's file serves.

    Args:
        samples: (n,) finite floats; n may be 0.

    Raises:
        AudioError: not mono, not finite, or more than a WAV file can hold.
        OutputError: a path that cannot be written.
    """
    values = np.asarray(samples, dtype=np.float32)
    if values.ndim != 1 or not np.isfinite(values).all():
        raise AudioError(f"sound of shape {values.shape} cannot be written: one channel of finite samples is needed")
    if values.size >= 2**31 - 64:
        raise AudioError(f"{values.size} samples do not fit into a WAV file", "write shorter pieces")
    pcm = np.clip(np.round(values * 32768.0), -32768, 32767).astype("<i2")
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, rate, rate * 2, 2, 16)
    head = struct.pack("<4sI4s", b"RIFF", 4 + len(fmt) + 8 + pcm.nbytes, b"WAVE") + fmt
    data = head + struct.pack("<4sI", b"data", pcm.nbytes) + pcm.tobytes()
    if not isinstance(path_or_file, (str, Path)):
        path_or_file.write(data)
        return
    try:
        Path(path_or_file).write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path_or_file}: cannot be written: {error.strerror or error}") from error
