"""Reading and writing vocabularies."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import InputError
from clvp_cli.text.vocabulary import (
    embedded_vocabulary,
    format_merges,
    parse_merges,
    parse_vocab,
    read_tortoise,
    read_vocabulary,
)


def test_the_embedded_tables_are_the_published_ones() -> None:
    """255 entries, 215 merges, the control tokens at 0, 1 and 2."""
    vocabulary = embedded_vocabulary()
    assert sorted(vocabulary.ids.values()) == list(range(255))
    assert [vocabulary.ids[token] for token in ("[STOP]", "[UNK]", "[SPACE]", "get")] == [0, 1, 2, 254]
    assert len(vocabulary.merges) == 215
    assert vocabulary.merges[0] == ("t", "h")
    assert vocabulary.merges[-1] == ("ge", "t")


def test_the_assets_are_those_that_the_origins_name() -> None:
    """ORIGINS.md states the sha256 of the two tables, and the mel norms are 80 float32."""
    assets = resources.files("clvp_cli") / "assets"
    origins = (assets / "ORIGINS.md").read_text(encoding="utf-8")
    for name in ("vocab.json", "merges.txt"):
        assert hashlib.sha256((assets / name).read_bytes()).hexdigest() in origins
    with resources.as_file(assets / "mel_norms.npy") as path:
        norms = np.load(path, allow_pickle=False)
    assert (norms.shape, norms.dtype) == ((80,), np.float32)


@pytest.mark.parametrize(
    "text", ["#version: 0.2\na b\nc d\n", "a b\nc d\n", "a b\nc d", "\ufeff#version: 0.2\r\na b\r\nc d"]
)
def test_no_merge_is_lost(text: str) -> None:
    """The header, the final newline and Windows line ends make no difference."""
    assert parse_merges(text, "merges.txt") == [("a", "b"), ("c", "d")]


def test_merges_survive_a_round_trip() -> None:
    """What is written is what transformers' reader expects, and reads back the same."""
    merges = embedded_vocabulary().merges
    text = format_merges(merges)
    assert text.split("\n")[0].startswith("#version")
    assert [tuple(line.split()) for line in text.split("\n")[1:-1]] == merges


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object"),
        ('{"a": "0"}', "the id of 'a'"),
        ('{"a": true}', "the id of 'a'"),
        ('{"a": 0, "b": 0}', "share one id"),
        ('{"a": 4294967296}', "the id of 'a'"),
        ('{"a": "%s"}' % ("x" * 10**5), "the id of 'a' is 'x"),
        ('{"a\\ud800": 1}', "is no text"),
        ('{"a":' * 10**5, "not valid JSON"),
    ],
)
def test_a_damaged_vocabulary_is_refused_by_name(text: str, reason: str) -> None:
    """The error names the file and what is wrong in it."""
    with pytest.raises(InputError, match=rf"vocab\.json.*{reason}") as caught:
        parse_vocab(text, "vocab.json")
    assert len(caught.value.message) < 250


@pytest.mark.parametrize(
    "document",
    [
        {"model": {"vocab": {"a": 0}, "merges": 5}},
        {"model": {"vocab": {"a": 0}, "merges": [5]}},
        {"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": 5},
        {"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [5]},
        {"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"content": "b", "id": "x"}]},
        {"model": {"vocab": {"a": 0}, "merges": []}, "added_tokens": [{"content": "b", "id": 0}]},
    ],
)
def test_a_damaged_file_of_tortoises_is_refused(tmp_path: Path, document: dict[str, object]) -> None:
    """Merges or added tokens of another kind, or two tokens with one id, are an error that names the file."""
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"tokenizer\.json: "):
        read_tortoise(tmp_path / "tokenizer.json")


def test_a_damaged_merge_is_refused_by_line() -> None:
    """A line that is no pair is named by its number in the file."""
    with pytest.raises(InputError, match=r"merges\.txt: line 3"):
        parse_merges("#version: 0.2\na b\nabc\n", "merges.txt")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """A path that does not exist is an input error, not a traceback."""
    with pytest.raises(InputError, match="absent"):
        read_vocabulary(tmp_path / "absent.json", tmp_path / "merges.txt")


@pytest.mark.parametrize("as_pairs", [False, True])
def test_reads_tortoises_file(tmp_path: Path, as_pairs: bool) -> None:
    """A tokenizer.json holds the same tables, its merges as lines or as pairs."""
    vocabulary = embedded_vocabulary()
    merges = [list(pair) if as_pairs else " ".join(pair) for pair in vocabulary.merges]
    added = [{"id": index, "content": token} for token, index in list(vocabulary.ids.items())[:3]]
    document = {"added_tokens": added, "model": {"vocab": vocabulary.ids, "merges": merges}}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    assert read_tortoise(path) == vocabulary
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match="no BPE model"):
        read_tortoise(path)
