"""Reading and writing sound files: what is accepted, what is refused, and with what memory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from clvp_cli.audio.voice import bundled_voice
from clvp_cli.audio.waveform import _opened, _steady, read_audio, write_wav
from clvp_cli.errors import AudioError, ClvpError, OutputError


def tone(seconds: float = 1.0, rate: int = 22050, hz: float = 440.0) -> npt.NDArray[np.float32]:
    return (0.3 * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(samples: npt.ArrayLike, rate: int = 22050, kind: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.asarray(samples), rate, format=kind, subtype=subtype)
    return file.getvalue()


def wav_header(data_bytes: int, *, rate: int = 22050, channels: int = 1, body: bytes = b"") -> bytes:
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, rate, rate * 2 * channels % 2**32, 2 * channels, 16)
    size = min(36 + data_bytes, 2**32 - 1)
    return struct.pack("<4sI4s", b"RIFF", size, b"WAVE") + fmt + struct.pack("<4sI", b"data", data_bytes) + body


KINDS = [
    ("WAV", "PCM_16", 22050),
    ("WAV", "PCM_24", 44100),
    ("WAV", "FLOAT", 48000),
    ("WAV", "PCM_U8", 8000),
    ("FLAC", "PCM_16", 16000),
    ("OGG", "VORBIS", 16000),
    ("OGG", "OPUS", 48000),
    ("MP3", "MPEG_LAYER_III", 44100),
    ("AIFF", "PCM_16", 11025),
    ("AU", "PCM_16", 22050),
    ("CAF", "PCM_16", 44100),
    ("RF64", "PCM_24", 48000),
    ("W64", "PCM_16", 22050),
    ("NIST", "PCM_16", 16000),
]


@pytest.mark.parametrize(("kind", "subtype", "rate"), KINDS)
def test_formats(kind: str, subtype: str, rate: int) -> None:
    """Every accepted format and rate gives the same tone at 22.05 kHz."""
    wave = read_audio(encoded(tone(1.0, rate), rate, kind, subtype))
    assert (wave.sample_rate, wave.original_rate, wave.channels) == (22050, rate, 1)
    assert wave.samples.dtype == np.float32 and wave.samples.ndim == 1
    assert wave.seconds == pytest.approx(1.0, abs=0.06)  # lossy encoders pad
    middle = wave.samples[4000:16000]
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle))))
    assert spectrum.argmax() * 22050 / len(middle) == pytest.approx(440, abs=3)
    assert np.abs(middle).max() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("kind", "subtype", "rate"), [k for k in KINDS if k[0] != "MP3"])
@pytest.mark.parametrize("part", [0.01, 0.5, 0.98])
def test_cut_short(kind: str, subtype: str, rate: int, part: float) -> None:
    """A file of any format that was cut short is an error."""
    whole = encoded(tone(2.0, rate) + np.random.default_rng(0).normal(0, 0.01, 2 * rate), rate, kind, subtype)
    with pytest.raises(AudioError, match=r"cut short|not a sound file"):
        read_audio(whole[: int(part * len(whole))])


def test_a_length_that_is_not_told() -> None:
    """An AU or FLAC stream of unknown length is read to its end."""
    au = encoded(tone(2.0), kind="AU")
    assert read_audio(au[:8] + b"\xff" * 4 + au[12:]).seconds == 2.0
    flac = encoded(tone(2.0), kind="FLAC")
    flac = flac[:21] + bytes([flac[21] & 0xF0, 0, 0, 0, 0]) + flac[26:]  # STREAMINFO: 0 samples
    assert read_audio(flac).seconds == 2.0
    with pytest.raises(AudioError, match="cut short"):
        read_audio(flac[: len(flac) // 2])


@pytest.mark.parametrize(("kind", "at", "value"), [("AIFF", 38, b"\0"), ("W64", 64, b"\xe7" + b"\xff" * 6 + b"\x7f")])
def test_a_header_that_leads_nowhere(
    kind: str, at: int, value: bytes, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A chunk that points outside the file is an AudioError, and nothing is printed."""
    whole = encoded(tone(), kind=kind)
    path = tmp_path / "damaged"
    path.write_bytes(whole[:at] + value + whole[at + len(value) :])
    for source in (path, path.read_bytes()):
        with pytest.raises(AudioError):
            read_audio(source)
    assert capfd.readouterr() == ("", "")


def test_cut_short_mp3(capfd: pytest.CaptureFixture[str]) -> None:
    """An MP3 file that was cut short is an error."""
    whole = encoded(tone(3.0), 22050, "MP3")
    with pytest.raises(AudioError, match="cut short"):
        read_audio(whole[: len(whole) // 2])
    capfd.readouterr()  # the MP3 decoder writes its own complaint


def test_mp3_whose_header_does_not_tell_its_length(capfd: pytest.CaptureFixture[str]) -> None:
    """Without a length, or with two files in a row, an MP3 is read to its end or refused, never read in part."""
    noise, rest = np.random.default_rng(0).normal(0, 0.2, 3 * 44100), np.zeros(3 * 44100)
    for parts in ((rest, noise), (noise, rest)):
        whole = encoded(np.concatenate(parts), 44100, "MP3")
        assert read_audio(whole).seconds == pytest.approx(6)
        bare = whole[whole.index(b"\xff\xfb", 4) :]  # the first frame tells the length
        if parts[0] is rest:
            assert read_audio(bare).seconds == pytest.approx(6, abs=0.1)
        else:
            with pytest.raises(AudioError, match=r"only 1\.\d of 6\.\d s can be read"):
                read_audio(bare)
    with pytest.raises(AudioError, match=r"only 6\.0 of 12\.\d s can be read"):
        read_audio(whole + whole)
    capfd.readouterr()


def test_stereo_is_averaged() -> None:
    """Two channels become their mean."""
    left, right = tone(), -0.5 * tone()
    wave = read_audio(encoded(np.stack([left, right], 1), subtype="FLOAT"))
    assert wave.channels == 2
    np.testing.assert_allclose(wave.samples, (left + right) / 2, atol=1e-7)


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_resampling_is_soxr_hq(rate: int) -> None:
    """Resampling in blocks equals one call of soxr on the whole, with the length rounded up."""
    import soxr

    noise = np.random.default_rng(1).normal(0, 0.1, 600_001).astype(np.float32)  # more than one block
    wave = read_audio(encoded(noise, rate, subtype="FLOAT"))
    whole = soxr.resample(noise, rate, 22050, quality="HQ")
    assert len(wave.samples) == -(-len(noise) * 22050 // rate)
    n = min(len(whole), len(wave.samples))
    np.testing.assert_allclose(wave.samples[:n], whole[:n], atol=1e-6)


def test_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path, a string, bytes, a stream, a pipe and standard input read the same."""
    data = encoded(tone(0.2))
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    first = read_audio(path)
    assert first.source == str(path)
    with path.open("rb") as file:
        results = [read_audio(str(path)), read_audio(data), read_audio(io.BytesIO(data)), read_audio(file)]
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    writer = threading.Thread(target=fifo.write_bytes, args=(data,))
    writer.start()
    results.append(read_audio(fifo))
    writer.join()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    results.append(read_audio("-"))
    assert results[-1].source == "standard input"
    for wave in results:
        np.testing.assert_array_equal(wave.samples, first.samples)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="this system has no files in memory")
def test_libsndfile_calls_no_python(tmp_path: Path) -> None:
    """A file's and bytes' own descriptors are decoded: in a callback Ctrl-C would be printed, and lost."""
    path = tmp_path / "a.wav"
    path.write_bytes(encoded(tone()))
    for source in (path, path.read_bytes()):
        with _opened(source, "sound") as file:
            assert _steady(file) == file.fileno()


def no_frames() -> bytes:
    return encoded(np.zeros(0, np.float32))


def with_value(value: float) -> Callable[[], bytes]:
    def make() -> bytes:
        samples = tone()
        samples[500] = value
        return encoded(samples, subtype="FLOAT")

    return make


def opposite_infinities() -> bytes:
    return encoded(np.full((1000, 2), [np.inf, -np.inf]), subtype="FLOAT")


BAD = {
    "empty": (lambda: b"", "empty"),
    "text": (lambda: b"hello, I am not sound\n" * 20, "not a sound file"),
    "json": (lambda: b'{"codes": [1, 2, 3]}', "not a sound file"),
    "npy": (lambda: b"\x93NUMPY\x01\x00" + bytes(200), "not a sound file"),
    "zip": (lambda: b"PK\x03\x04" + bytes(500), "not a sound file"),
    "random": (lambda: np.random.default_rng(0).bytes(5000), "not a sound file"),
    "zeros": (lambda: bytes(5000), "not a sound file"),
    "header only": (lambda: wav_header(0)[:30], "not a sound file"),
    "no frames": (no_frames, "no samples"),
    "nan": (with_value(float("nan")), "NaN"),
    "inf": (with_value(float("inf")), "infinite"),
    "infinities": (opposite_infinities, "NaN"),
    "unscaled": (lambda: encoded(tone() * 30000, subtype="FLOAT"), "within ±1"),
    "rate 0": (lambda: wav_header(200, rate=0, body=bytes(200)), "not a sound file|sample rate"),
    "rate 1": (lambda: wav_header(200, rate=1, body=bytes(200)), "sample rate of 1 Hz"),
    "rate absurd": (lambda: wav_header(200, rate=2**31 - 1, body=bytes(200)), "sample rate of"),
    "no channels": (lambda: wav_header(200, channels=0, body=bytes(200)), "not a sound file"),
    "promises more": (lambda: wav_header(10**9, body=bytes(2000)), "cut short"),
    "flac damaged": (lambda: encoded(tone(), kind="FLAC")[:300] + bytes(3000), "damaged|cut short"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_audio(name: str, tmp_path: Path) -> None:
    """Every kind of unusable file is one short AudioError that names it."""
    make, message = BAD[name]
    path = tmp_path / "bad.wav"
    path.write_bytes(make())
    with pytest.raises(AudioError, match=message) as caught:
        read_audio(path)
    assert str(path) in caught.value.message and "\n" not in caught.value.message
    assert isinstance(caught.value, ClvpError) and isinstance(caught.value, ValueError)


def test_bad_paths(tmp_path: Path) -> None:
    """A missing file, a directory, a text stream and headerless samples are named as such."""
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "absent.wav")
    with pytest.raises(AudioError, match="a directory"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match="cannot be opened"):
        read_audio("a\0b.wav")
    with pytest.raises(AudioError, match="cannot be opened"):
        read_audio("x" * 5000)

    class Text(io.StringIO):
        def seekable(self) -> bool:
            return False

    with pytest.raises(AudioError, match="text stream"):
        read_audio(Text("abc"))  # type: ignore[arg-type]
    raw = tmp_path / "samples.raw"
    raw.write_bytes(bytes(1000))
    with pytest.raises(AudioError, match="not a sound file"):
        read_audio(raw)


def test_silence() -> None:
    """Silence, even with a constant offset, is refused where sound is required, and read where it is not."""
    for samples in (np.zeros(5000), np.full(5000, 0.1)):
        data = encoded(samples)
        assert read_audio(data).samples.size == 5000
        with pytest.raises(AudioError, match="only silence"):
            read_audio(data, require_sound=True)


def test_too_long() -> None:
    """Audio beyond the limit is an error; audio at the limit is not; None lifts it."""
    data = encoded(tone(2.0))
    assert read_audio(data, max_seconds=2.0).seconds == 2.0
    assert read_audio(data, max_seconds=None).seconds == 2.0
    with pytest.raises(AudioError, match=r"longer than 1\.5 s"):
        read_audio(data, max_seconds=1.5)


@pytest.mark.parametrize("length", [0xFFFFFFFF, 0x7FFFF000])
def test_streamed_wav(length: int) -> None:
    """A WAV file written to a pipe, its length unknown, is read to its end."""
    body = (tone(0.5) * 32767).astype("<i2").tobytes()
    assert read_audio(wav_header(length, body=body)).seconds == 0.5


HOSTILE = """
import resource, sys
from clvp_cli.audio.waveform import read_audio
from clvp_cli.errors import AudioError
read_audio(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in sys.argv[2:]:
    try:
        read_audio(path, max_seconds=20)
    except AudioError as error:
        print(error.message)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_hostile_headers_take_no_memory(tmp_path: Path) -> None:
    """Headers that claim 4 GB, a thousand channels or an hour of sound cost less than 100 MB."""
    flac = bytearray(encoded(tone(), kind="FLAC"))
    flac[21:26] = bytes([flac[21] | 0x0F, 255, 255, 255, 255])  # STREAMINFO: 2^36 - 1 samples
    hour = wav_header(2 * 3600 * 22050)
    files = {
        "good.wav": encoded(tone()),
        "claims.wav": wav_header(4_000_000_000, body=bytes(5000)),
        "channels.wav": wav_header(4_000_000_000, channels=1000, body=bytes(5000)),
        "claims.flac": bytes(flac),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    with (tmp_path / "hour.wav").open("wb") as file:  # sparse: an hour of zeros
        file.write(hour)
        file.truncate(len(hour) + 2 * 3600 * 22050)
    paths = [str(tmp_path / name) for name in [*files, "hour.wav"]]
    done = subprocess.run([sys.executable, "-c", HOSTILE, *paths], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert "longer than 20 s" in done.stdout and "claims.flac" in done.stdout
    assert int(lines[-1]) < 100


def test_write_wav(tmp_path: Path) -> None:
    """What is written is 16-bit, clipped, and read back within half a step, through a path or a pipe-like file."""
    samples = np.concatenate([tone(0.1), [1.5, -1.5, 1.0, -1.0, 0.0]]).astype(np.float32)
    write_wav(tmp_path / "out.wav", samples)

    class Pipe(io.BytesIO):
        def seek(self, *args: int) -> int:
            raise OSError("not seekable")

    pipe = Pipe()
    write_wav(pipe, samples)
    assert pipe.getvalue() == (tmp_path / "out.wav").read_bytes()
    back = read_audio(tmp_path / "out.wav")
    np.testing.assert_allclose(back.samples, np.clip(samples, -1, 32767 / 32768), atol=0.5 / 32768 + 1e-7)
    assert soundfile.info(tmp_path / "out.wav").subtype == "PCM_16"


def test_write_wav_refuses(tmp_path: Path) -> None:
    """NaN, two channels and a path that cannot be written are errors."""
    for bad in (np.array([np.nan]), np.zeros((2, 5))):
        with pytest.raises(AudioError, match="cannot be written"):
            write_wav(io.BytesIO(), bad)
    with pytest.raises(OutputError, match="cannot be written"):
        write_wav(tmp_path / "no" / "such" / "dir.wav", np.zeros(3))


def test_bundled_voice() -> None:
    """The bundled voice is one short clip of mono speech at the model's rate."""
    data = bundled_voice()
    wave = read_audio(data, require_sound=True)
    assert len(data) <= 120_000 and 3 <= wave.seconds <= 6
    assert (wave.original_rate, wave.channels) == (22050, 1)
