"""`clvp tokenize`: records, blanks, files and pipes, and back again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Cli, read_jsonl


def test_records_have_the_promised_fields(cli: Cli) -> None:
    """A record holds the text, what it was normalised to, its ids and its tokens, one a text."""
    first, second = cli.fine("tokenize", "Hello, world!", "It is 3 o'clock.").records
    assert set(first) >= {"text", "normalized", "ids", "tokens"}
    assert first["text"] == "Hello, world!" and len(first["ids"]) == len(first["tokens"])
    assert "three" in second["normalized"]


def test_blanks_at_the_ends_are_kept(cli: Cli) -> None:
    """An argument is taken as it stands, blanks at its ends included."""
    bare, blank = cli.fine("tokenize", "hello", " hello ").records
    assert blank["text"] == " hello " and blank["ids"] == [2, *bare["ids"], 2]


def test_a_text_that_looks_like_an_option_comes_after_two_dashes(cli: Cli) -> None:
    """`--` ends the options."""
    assert cli.fine("tokenize", "--", "-t").records[0]["text"] == "-t"


@pytest.mark.parametrize("source", ["argument", "file", "stdin", "pipe"])
def test_arguments_files_and_stdin_give_the_same(source: str, cli: Cli, tmp_path: Path) -> None:
    """Where a text comes from changes nothing; a line end is no part of it."""
    (tmp_path / "lines.txt").write_bytes(b"One line.\r\nAnother.\n")
    given = {
        "argument": (["One line.", "Another."], b""), "file": (["-f", "lines.txt"], b""),
        "stdin": (["-f", "-"], b"One line.\nAnother.\n"), "pipe": ([], b"One line.\nAnother.\n"),
    }  # fmt: skip
    arguments, stdin = given[source]
    texts = [record["text"] for record in cli.fine("tokenize", *arguments, stdin=stdin).records]
    assert texts == ["One line.", "Another."]


@pytest.mark.parametrize("form", ["62 84 28", "62,84,28", "[62, 84, 28]", '{"ids": [62, 84, 28], "text": "x"}'])
def test_decode_reads_ids_however_they_are_written(form: str, cli: Cli) -> None:
    """--decode takes a line of numbers, a JSON list, or a record of tokenize itself."""
    assert cli.fine("tokenize", "--decode", form).records == [{"ids": [62, 84, 28], "text": "hello"}]


@pytest.mark.parametrize(
    "form",
    [
        *(
            "[1e400]",
            "[NaN]",
            "[true]",
            "[1.0]",
            "[[1]]",
            '["5"]',
            "[null]",
            "[-1]",
            "[99999999999999999999999]",
            "1_0",
        ),
        *("٣", "1.0", '{"ids": "12"}', '{"ids": {"5": 1}}', '{"ids": 5}', "{}", "[1", "9" * 5000, "[" * 100_000),
    ],
    ids=lambda form: form[:12],
)
def test_what_is_no_list_of_ids_is_refused(form: str, cli: Cli) -> None:
    """Whole numbers of the vocabulary in plain digits, or JSON's own, and nothing that resembles them."""
    result = cli("tokenize", "--decode", "--", form)
    said = " ".join(result.complaint)
    assert result.code == 1 and ("not a list of ids" in said or "not in the vocabulary" in said) and len(said) < 300


def test_a_bad_line_of_many_is_told_in_its_place(cli: Cli) -> None:
    """The lines after it are read all the same; --strict makes it count."""
    lines = b"1 2\n99 999\n3 4\n"
    records = cli.fine("tokenize", "--decode", "-f", "-", stdin=lines).records
    assert [record.get("line") for record in records] == [None, 2, None] and "999" in records[1]["error"]
    assert cli("tokenize", "--decode", "-f", "-", "--strict", stdin=lines).code == 3
    assert cli("tokenize", "--decode", "99 999").code == 1


def test_every_normaliser_is_offered(cli: Cli) -> None:
    """--normalizer and the profile choose how a text is spelled."""
    spelled = {
        name: cli.fine("tokenize", "Dr. No has $5.", "--normalizer", name).records[0]["normalized"]
        for name in ("english", "hf", "tortoise")
    }
    assert len(spelled) == 3 and all("doctor" in text for text in spelled.values())
    assert cli.fine("tokenize", "Dr. No has $5.", "-c", "hf").records[0]["normalized"] == spelled["hf"]


def test_records_go_to_a_file_too(cli: Cli, tmp_path: Path) -> None:
    """-o FILE.jsonl holds the same records."""
    result = cli.fine("tokenize", "hello", "-o", "out.jsonl")
    assert read_jsonl(tmp_path / "out.jsonl") == result.records


def test_an_empty_text_has_no_ids_and_is_no_error(cli: Cli) -> None:
    """One record for each line, an empty one too."""
    assert [record["ids"] for record in cli.fine("tokenize", "-f", "-", stdin=b"\nx\n").records] == [[], [37]]


def test_text_is_not_escaped(cli: Cli) -> None:
    """Letters stay letters in the JSON."""
    assert "Ä" in cli.fine("tokenize", "Ä").out and json.loads(cli.fine("tokenize", "Ä").out)["text"] == "Ä"
