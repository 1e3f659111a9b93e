"""Whether an audio file is all there, told from its container alone, and how long an MP3 is.

libsndfile reads a WAV, AIFF, AU, CAF, W64, SPHERE or Ogg file that was cut short as if it ended there. A half-copied
recording should be an error instead, so this module compares what the container promises with the bytes that are
present. It decodes nothing and allocates nothing by a header's word.
"""

from __future__ import annotations

import math
import re
import struct
from typing import BinaryIO

# A writer into a pipe cannot go back to fill in the length and leaves 0 or something near 2 or 4 GiB, or 2^63.
STREAMED_LENGTH = 0x7F000000
STREAMED_LONG = 2**62
MAX_CHUNKS = 256
TAIL_BYTES = 70_000  # an Ogg page is at most 65 307 bytes
W64 = bytes.fromhex("726966662e91cf11a5d628db04c10000")  # its chunks are named by 16 bytes and count their own heads
# The first bytes: where chunks begin, their heads (name, length), and the multiple that they are padded to.
CHUNKED = {
    b"RIFF": (12, "<4sI", 2),
    b"RF64": (12, "<4sI", 2),
    b"FORM": (12, ">4sI", 2),
    b"caff": (8, ">4sq", 1),
    W64: (40, "<16sQ", 8),
}


# Of MPEG audio's third layer, by version (3: MPEG-1, 2: MPEG-2, 0: MPEG-2.5).
MP3_RATES = {3: (44100, 48000, 32000), 2: (22050, 24000, 16000), 0: (11025, 12000, 8000)}  # Hz
MP3_KBITS = (
    (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
)


def missing_bytes(file: BinaryIO, size: int) -> int:
    """Bytes that the container promises beyond the end of the file; 0 where it is whole or cannot tell.

    Args:
        file: seekable, its position is left anywhere.
        size: of the file, in bytes.
    """
    file.seek(0)
    magic = file.read(16)
    if len(magic) < 16:
        return 0
    for first, (start, head, multiple) in CHUNKED.items():
        if magic.startswith(first):
            return _missing_in_chunks(file, size, start, head, multiple)
    if magic[:4] in (b".snd", b"dns."):  # AU
        start, length = struct.unpack(">II" if magic[0] == ord(".") else "<II", magic[4:12])
        return 0 if length >= STREAMED_LENGTH else max(0, start + length - size)
    if magic[:7] == b"NIST_1A":  # SPHERE: what speech corpora come in, with a header of words
        words = dict(re.findall(rb"(\w+) -i (\d{1,12})", magic + file.read(1008)))
        held = [int(words.get(name, 0)) for name in (b"sample_count", b"channel_count", b"sample_n_bytes")]
        return max(0, 1024 + math.prod(held) - size)
    if magic[:4] == b"OggS":
        return _missing_in_last_page(file, size)
    return 0


def _missing_in_chunks(file: BinaryIO, size: int, position: int, head: str, multiple: int) -> int:
    """Walk the chunks to the one that holds the samples."""
    headed, longer = struct.calcsize(head), None
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        read = file.read(headed)
        if len(read) < headed:
            break
        name, length = struct.unpack(head, read)
        position += headed
        if len(name) == 16:
            length -= headed
        if name == b"ds64":  # RF64 keeps its length here
            longer = int.from_bytes(file.read(16)[8:], "little")
        if name[:4] in (b"data", b"SSND", b"BODY"):
            limit = STREAMED_LENGTH if head.endswith("I") and longer is None else STREAMED_LONG
            length = length if longer is None else longer
            return 0 if length >= limit else max(0, position + length - size)
        position += length + -length % multiple
        if not headed <= position < size:
            break
    return 0


def _missing_in_last_page(file: BinaryIO, size: int) -> int:
    """Compare the last Ogg page's segment table with the bytes that follow it."""
    start = max(0, size - TAIL_BYTES)
    file.seek(start)
    tail = file.read(TAIL_BYTES)
    page = tail.rfind(b"OggS\x00")
    if page < 0:
        return 0
    segments = tail[page + 26] if page + 26 < len(tail) else 1
    table = tail[page + 27 : page + 27 + segments]
    if len(table) < segments:
        return segments - len(table)
    return max(0, page + 27 + segments + sum(table) - len(tail))


def mp3_samples(file: BinaryIO) -> tuple[int, bool]:
    """Samples of a channel in an MP3's frames, counted one by one, and whether its first frame tells how many."""
    file.seek(0)
    tag = file.read(10)
    position = 0
    if tag[:3] == b"ID3":
        position = 10 + sum((byte & 127) << shift for byte, shift in zip(tag[6:], (21, 14, 7, 0), strict=True))
    total, told = 0, False
    while True:
        file.seek(position)
        head = file.read(4)
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:  # the sync, and the third layer
            return total, told
        version, kind, rate = head[1] >> 3 & 3, head[2] >> 4, head[2] >> 2 & 3
        if version == 1 or kind in (0, 15) or rate == 3:
            return total, told
        first = version == 3
        size = (144 if first else 72) * 1000 * MP3_KBITS[first][kind] // MP3_RATES[version][rate] + (head[2] >> 1 & 1)
        if not total:
            frame = file.read(size)
            told = any(name in frame for name in (b"Xing", b"Info", b"VBRI"))
        total += 1152 if first else 576
        position += size
