"""Whether an audio file is all there, told from its container alone.

libsndfile reads a WAV, AIFF or Ogg file that was cut short as if it ended there. A half-copied recording should be
an error instead, so this module compares what the container promises with the bytes that are present. It decodes
nothing and allocates nothing by a header's word.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

# A writer into a pipe cannot go back to fill in the length and leaves 0 or something near 2 or 4 GiB.
STREAMED_LENGTH = 0x7F000000
MAX_CHUNKS = 256
TAIL_BYTES = 70_000  # an Ogg page is at most 65 307 bytes


def missing_bytes(file: BinaryIO, size: int) -> int:
    """Bytes that the container promises beyond the end of the file; 0 where it is whole or cannot tell.

    Args:
        file: seekable, its position is left anywhere.
        size: of the file, in bytes.
    """
    file.seek(0)
    magic = file.read(12)
    if magic[:4] in (b"RIFF", b"FORM") and len(magic) == 12:
        return _missing_in_chunks(file, size, little=magic[:4] == b"RIFF")
    if magic[:4] == b"OggS":
        return _missing_in_last_page(file, size)
    return 0


def _missing_in_chunks(file: BinaryIO, size: int, *, little: bool) -> int:
    """Walk a WAV's or AIFF's chunks to the one that holds the samples."""
    position = 12
    for _ in range(MAX_CHUNKS):
        file.seek(position)
        head = file.read(8)
        if len(head) < 8:
            break
        name, length = struct.unpack("<4sI" if little else ">4sI", head)
        if name in (b"data", b"SSND"):
            return 0 if length >= STREAMED_LENGTH else max(0, position + 8 + length - size)
        position += 8 + length + length % 2
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
