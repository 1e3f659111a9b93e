"""Byte-pair encoding: normalised text → tokens, in the published way and in Tortoise's.

Owns the two splitting schemes, on the `tokenizers` library, which is imported when an engine is built. Knows nothing
of ids, special tokens or normalisers.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from clvp_cli.text.vocabulary import Vocabulary

SPACE = "[SPACE]"
BYTE_SPACE = "Ġ"  # how GPT-2's byte map writes a blank

Engine = Callable[[str], list[str]]


@lru_cache(maxsize=1)
def byte_characters() -> list[str]:
    """GPT-2's byte map: the printable character that stands for byte i, at index i.

    Printable Latin-1 stands for itself; the rest count up from U+0100, so that no byte is white space.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    characters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in characters)
    characters.update({byte: chr(0x100 + place) for place, byte in enumerate(others)})
    return [characters[byte] for byte in range(256)]


def published_engine(vocabulary: Vocabulary) -> Engine:
    """transformers' splitting: GPT-2's words, bytes, merges by rank; a lone blank becomes [SPACE] if there is one.

    Pieces that the vocabulary lacks come out as they are, for the caller to map to [UNK], as in the original.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers

    pieces = dict(vocabulary.ids)
    merged = (piece for pair in vocabulary.merges for piece in (*pair, "".join(pair)))
    for piece in (*byte_characters(), *merged):
        pieces.setdefault(piece, len(pieces) + max(vocabulary.ids.values()) + 1)
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=vocabulary.merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    has_space = SPACE in vocabulary.ids

    def encode(text: str) -> list[str]:
        tokens: list[str] = tokenizer.encode(text, add_special_tokens=False).tokens
        return [SPACE if token == BYTE_SPACE and has_space else token for token in tokens]

    return encode


def tortoise_engine(vocabulary: Vocabulary, unk_token: str) -> Engine:
    """Tortoise's splitting: blanks written as [SPACE], words and runs of punctuation apart, merges by rank."""
    from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

    pieces = dict(vocabulary.ids)
    merged = ["".join(pair) for pair in vocabulary.merges]
    for piece in (*(part for pair in vocabulary.merges for part in pair), *merged, unk_token):
        pieces.setdefault(piece, len(pieces) + max(vocabulary.ids.values()) + 1)
    tokenizer = Tokenizer(models.BPE(vocab=pieces, merges=vocabulary.merges, unk_token=unk_token))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in vocabulary.control])

    def encode(text: str) -> list[str]:
        tokens: list[str] = tokenizer.encode(text.replace(" ", SPACE), add_special_tokens=False).tokens
        return tokens

    return encode


def join_bytes(text: str, errors: str) -> str:
    """Text written in byte characters → the text of those bytes; a character that is none stands for itself."""
    values = {character: byte for byte, character in enumerate(byte_characters())}
    data = b"".join(bytes([values[c]]) if c in values else c.encode("utf-8") for c in text)
    return data.decode("utf-8", errors=errors)
