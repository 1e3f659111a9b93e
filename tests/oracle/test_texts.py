"""Normalisers and tokenizers against transformers' ClvpTokenizer and Tortoise's VoiceBpeTokenizer, on made-up texts."""

from __future__ import annotations

import random
import string
from pathlib import Path
from typing import Any

import pytest
from tortoise.utils.tokenizer import VoiceBpeTokenizer, english_cleaners
from transformers import ClvpTokenizer

import clvp_cli
from clvp_cli.errors import ClvpError
from clvp_cli.text.normalizers import get_normalizer
from clvp_cli.text.tokenizer import load_tokenizer

from . import environment
from .live import draws

SENTENCE = "the quick Brown fox jumps over lazy dogs isn't they're café naïve it's rock'n'roll Dr. Mrs. St. co. ltd."
WORDS = SENTENCE.split()
MARKS = [*".,!?;:()\"'%&@/“”’–\t\n", " - ", "...", "  "]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """transformers' tokenizer with Tortoise's tables."""
    files = environment.write_published_vocabulary(tmp_path_factory.mktemp("vocabulary"))
    return ClvpTokenizer(str(files / "vocab.json"), str(files / "merges.txt"))


def texts(seed: int, count: int = 150) -> list[str]:
    """Sentences of words, marks, numbers, money, ordinals and stray characters."""
    rng = random.Random(seed)
    return ["".join(_piece(rng) for _ in range(rng.randrange(1, 12))) for _ in range(count)]


def _piece(rng: random.Random) -> str:
    number = str(rng.choice([rng.randrange(30), rng.randrange(1000), rng.randrange(900, 3100), rng.randrange(10**12)]))
    return rng.choice(
        [
            rng.choice(WORDS) + " ",
            rng.choice(WORDS).upper() + rng.choice(MARKS),
            rng.choice(MARKS),
            number + " ",
            f"{int(number):,} ",
            number + rng.choice(["st", "nd", "rd", "th"]) + " ",
            "$" + number + rng.choice(["", ".5", ".50", ".05", ".1.2"]) + " ",
            "£" + number + " ",
            f"{number}.{rng.randrange(100)} ",
            "".join(rng.choice(string.printable) for _ in range(3)),
            chr(rng.choice([0xE9, 0xDF, 0x4E2D, 0x1F600, 0xA0, 0x2026])),
        ]
    )


@draws(4)
def test_published_texts(seed: int, published: Any) -> None:
    """The hf profile normalises, encodes and decodes as ClvpTokenizer does, and fails where that crashes."""
    ours, normalise = load_tokenizer(None, normalizer="hf", scheme="hf"), get_normalizer("hf")
    for text in texts(seed):
        try:
            expected = published.normalizer(text)
        except ValueError:
            with pytest.raises(ClvpError):
                normalise(text)
            continue
        assert normalise(text) == expected, text
        ids = published(text)["input_ids"]
        assert ours(text)["input_ids"] == ids, text
        assert ours.decode(ids) == published.decode(ids, clean_up_tokenization_spaces=True), text


@draws(4)
def test_tortoise_texts(seed: int) -> None:
    """The tortoise profile encodes as VoiceBpeTokenizer does, transliteration of rare letters aside."""
    theirs = VoiceBpeTokenizer()
    ours, normalise = load_tokenizer(None, normalizer="tortoise", scheme="tortoise"), get_normalizer("tortoise")
    for text in texts(seed):
        text = "".join(letter for letter in text if letter < "\u0250" or letter in "“”’–…")
        try:
            expected = english_cleaners(text)
        except ValueError:
            with pytest.raises(ClvpError):
                normalise(text)
            continue
        assert normalise(text) == expected, text
        assert ours(text)["input_ids"] == theirs.encode(text), text


@draws(2)
def test_batches(seed: int, published: Any, tmp_path: Path) -> None:
    """Padding, truncation, masks and special ids of a batch are those of ClvpTokenizer."""
    published.save_pretrained(tmp_path)
    given = [text for text in texts(seed, 12) if "$" not in text]
    for own in ({}, {"add_bos_token": True, "add_eos_token": True}):
        theirs = ClvpTokenizer.from_pretrained(tmp_path, **own)
        ours = clvp_cli.ClvpTokenizer.from_pretrained(tmp_path, normalizer="hf", **own)
        calls: list[dict[str, Any]] = [{"padding": True}, {"truncation": True, "max_length": 7}]
        calls += [{"padding": "max_length", "max_length": 40, "truncation": True}]
        if "add_eos_token" not in own:  # whose mask is one short in transformers
            calls += [{"return_special_tokens_mask": True}]
        for call in calls:
            expected, found = theirs(given, **call), ours(given, **call)
            assert {name: list(map(list, found[name])) for name in expected} == dict(expected), (own, call)


@draws(1)
def test_prefix_space(seed: int, published: Any, tmp_path: Path) -> None:
    """add_prefix_space does what transformers documents (and leaves undone): a blank before a text that has none."""
    published.save_pretrained(tmp_path)
    ours = clvp_cli.ClvpTokenizer.from_pretrained(tmp_path, normalizer="hf", add_prefix_space=True)
    for text in texts(seed, 20):
        if "$" not in text and not text[:1].isspace():
            assert ours(text)["input_ids"] == published(" " + text)["input_ids"], text
