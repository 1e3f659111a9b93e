"""Long jobs: what a run left is taken up again, never mixed with another job, never lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from command_line import Cli, read_jsonl, tone

LINES = "One.\n☃\nThree.\nFour.\n"
JOBS = {
    "generate-candidates": ("-n", "2"),
    "generate": ("-n", "2", "-k", "1"),
}


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A directory with a voice and lines."""
    import soundfile

    soundfile.write(tmp_path / "voice.wav", tone(), 22050)
    (tmp_path / "lines.txt").write_text(LINES)
    return tmp_path


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C once `count` candidates were made."""
    from clvp_cli.pipeline import Clvp

    whole = Clvp.candidates

    def cut(self: Clvp, *arguments: Any, **options: Any) -> Iterator[Any]:
        for number, found in enumerate(whole(self, *arguments, **options)):
            if number == count:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(Clvp, "candidates", cut)


def job(command: str, *more: str, out: str = "out.jsonl") -> tuple[str, ...]:
    """A job of four lines, one of which cannot be spoken."""
    fixed = ("-f", "lines.txt", "-r", "voice.wav", "--max-codes", "5", "--batch-size", "1")
    return (command, *fixed, *JOBS[command], "-o", out, *more)


@pytest.mark.parametrize("command", JOBS)
@pytest.mark.parametrize("count", [3, 4, 5])
def test_a_resumed_job_ends_as_one_that_was_never_stopped(command: str, count: int, cli: Cli, here: Path) -> None:
    """Wherever it was stopped, --resume makes the same file, and makes no finished text again."""
    whole = cli.fine(*job(command, out="whole.jsonl")).records
    with pytest.MonkeyPatch.context() as patch:
        stop_after(count, patch)
        stopped = cli(*job(command))
    assert stopped.code == 130 and "out.jsonl.part" in stopped.complaint[1] and not (here / "out.jsonl").exists()
    resumed = cli.fine(*job(command, "--resume"))
    assert read_jsonl(here / "out.jsonl") == read_jsonl(here / "whole.jsonl") == whole
    assert 1 not in [record["line"] for record in resumed.records]
    assert not (here / "out.jsonl.part").exists()


def test_runs_of_the_same_job_do_not_disturb_each_other(cli: Cli, here: Path) -> None:
    """A second run neither takes the .part of a first that has just begun, nor goes on with one that is finished."""
    from clvp_cli.commands.jobs import Job
    from clvp_cli.errors import UsageError
    from clvp_cli.io.jsonl import JsonlAppender

    with JsonlAppender(here / "out.jsonl.part", key="line") as first:
        done = cli(*job("generate"))
        assert done.code == 1 and "another run is writing" in done.complaint[0]
        first.append({"line": 0, "job": {"seed": 1}})
        first.append({"line": 1, "index": 0})
    second = Job(str(here / "out.jsonl"), {"seed": 1}, 1, resume=True)
    (here / "out.jsonl.part").unlink()
    with pytest.raises(UsageError, match="another run has finished it"), second:
        pass


@pytest.mark.parametrize("command", JOBS)
def test_a_beam_narrower_than_n_finishes_its_texts_too(command: str, cli: Cli, here: Path) -> None:
    """Where a beam finds fewer candidates than -n asks for, each text's records come when it is done, and count."""
    beam = ("-n", "16", "--beams", "2")
    whole = cli.fine(*job(command, *beam, out="whole.jsonl")).records
    with pytest.MonkeyPatch.context() as patch:
        stop_after(5, patch)
        cli(*job(command, *beam))
    assert {record["line"] for record in read_jsonl(here / "out.jsonl.part")} >= {0, 1, 2, 3}
    resumed = cli.fine(*job(command, *beam, "--resume")).records
    assert {record["line"] for record in resumed if "error" not in record} == {4}
    assert read_jsonl(here / "out.jsonl") == read_jsonl(here / "whole.jsonl") == whole


@pytest.mark.parametrize("command", JOBS)
def test_resuming_what_is_finished_makes_nothing(command: str, cli: Cli, here: Path) -> None:
    """--resume leaves a whole file of the same texts alone, and refuses one of other texts or another seed."""
    cli.fine(*job(command))
    with (here / "out.jsonl").open("a") as file:
        file.write('{"line": 9, "text": "mine", "index": 0}\n')
    before = (here / "out.jsonl").read_bytes()
    again = cli.fine(*job(command, "--resume"))
    assert again.records == [] and "finished already" in again.err
    other = cli(*job(command, "--resume", "--seed", "5"))
    (here / "lines.txt").write_text(LINES + "Five.\n")
    more = cli(*job(command, "--resume"))
    assert (other.code, more.code) == (2, 2) and "there already" in other.err and "there already" in more.err
    assert (here / "out.jsonl").read_bytes() == before and not (here / "out.jsonl.part").exists()


def test_a_line_that_was_mended_leaves_no_error_behind(cli: Cli, here: Path) -> None:
    """What was wrong with a line is forgotten once a resumed run has spoken it."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(5, patch)
        cli(*job("generate-candidates"))
    (here / "lines.txt").write_text(LINES.replace("☃", "Two."))
    cli.fine(*job("generate-candidates", "--resume"))
    made = read_jsonl(here / "out.jsonl")
    assert [record["line"] for record in made] == [1, 1, 2, 2, 3, 3, 4, 4] and not any("error" in r for r in made)


def test_a_job_stopped_before_its_first_text_leaves_nothing(cli: Cli, here: Path) -> None:
    """Ctrl-C before anything was made leaves no .part."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(0, patch)
        assert cli(*job("generate-candidates")).code == 130
    assert sorted(path.name for path in here.iterdir()) == ["lines.txt", "voice.wav"]


def test_what_was_left_is_not_overwritten(cli: Cli, here: Path) -> None:
    """Without --resume a .part is an error that names both ways out; an earlier whole file stays meanwhile."""
    (here / "out.jsonl").write_text('{"earlier": 1}\n')
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        cli(*job("generate-candidates"))
    left = (here / "out.jsonl.part").read_bytes()
    result = cli(*job("generate-candidates"))
    assert result.code == 2 and "--resume" in result.complaint[1]
    assert (here / "out.jsonl.part").read_bytes() == left
    assert read_jsonl(here / "out.jsonl") == [{"earlier": 1}]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--seed", "5"], "seed 20240229, not 5"),
        (["--temperature", "0.5"], "sampling.temperature 0.8, not 0.5"),
        (["-r", "other.wav"], "references"),
    ],
)
def test_another_job_is_not_mixed_in(more: list[str], says: str, cli: Cli, here: Path) -> None:
    """--resume refuses what would give other results, and says in what it differs."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        cli(*job("generate-candidates"))
    (here / "other.wav").write_bytes((here / "voice.wav").read_bytes())
    result = cli(*job("generate-candidates", "--resume", *more))
    assert result.code == 2 and says in result.complaint[0]
    assert cli.fine(*job("generate-candidates", "--resume", "--batch-size", "8")).code == 0  # changes no result


def test_other_texts_are_not_mixed_in(cli: Cli, here: Path) -> None:
    """--resume refuses a file whose finished lines are others now."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        cli(*job("generate-candidates"))
    (here / "lines.txt").write_text(LINES.replace("One", "Won"))
    result = cli(*job("generate-candidates", "--resume"))
    assert result.code == 2 and "line 1 was another text" in result.complaint[0]


@pytest.mark.parametrize("tail", ['{"line": 3, "tex', '{"line": 4}\n', '{"line": 3, "text": "Three.", "index": 0}\n'])
def test_a_part_that_ends_in_the_middle_is_taken_up(tail: str, cli: Cli, here: Path) -> None:
    """A run that was killed may leave half a record or half a text: that text is made again."""
    cli.fine(*job("generate-candidates", out="whole.jsonl"))
    with pytest.MonkeyPatch.context() as patch:
        stop_after(3, patch)
        cli(*job("generate-candidates"))
    with (here / "out.jsonl.part").open("a") as part:
        part.write(tail)
    cli.fine(*job("generate-candidates", "--resume"))
    made = [record for record in read_jsonl(here / "out.jsonl") if "codes" in record or "error" in record]
    assert made == read_jsonl(here / "whole.jsonl")


@pytest.mark.parametrize("content", ["", '{"codes": [1]}\n', '{"line": 1, "codes": [1]}\n', "no JSON\n"])
def test_a_foreign_part_is_not_taken_for_ours(content: str, cli: Cli, here: Path) -> None:
    """A file of that name that no run of ours left is an error, and stays; an empty one is no obstacle."""
    (here / "out.jsonl.part").write_text(content)
    result = cli(*job("generate-candidates", "--resume"))
    assert result.code == (1 if "no JSON" in content else 2) if content else result.code == 0
    assert not content or (here / "out.jsonl.part").read_text() == content


def test_a_job_that_was_done_begins_anew(cli: Cli, here: Path) -> None:
    """--resume without anything left behind makes the whole file."""
    cli.fine(*job("generate-candidates", "--resume"))
    first = (here / "out.jsonl").read_bytes()
    cli.fine(*job("generate-candidates", "--resume"))
    assert (here / "out.jsonl").read_bytes() == first and len(first.splitlines()) == 7


def test_the_records_of_a_part_are_whole_at_any_time(cli: Cli, here: Path) -> None:
    """Each record is on disk before the next one is made."""
    with pytest.MonkeyPatch.context() as patch:
        stop_after(5, patch)
        cli(*job("generate-candidates"))
    head, *records = [json.loads(line) for line in (here / "out.jsonl.part").read_text().splitlines()]
    assert head["line"] == 0 and head["job"]["seed"] == 20240229
    assert [(record["line"], record.get("index")) for record in records] == [
        (1, 0), (1, 1), (2, None), (3, 0), (3, 1), (4, 0),
    ]  # fmt: skip


@pytest.mark.parametrize("command", JOBS)
def test_a_page_of_sentences_is_as_many_texts(command: str, cli: Cli, here: Path) -> None:
    """--sentences cuts a text or a file at the ends of sentences; each is what it would be on a line of its own."""
    page = "Dr. Smith went home. It was\nlate!  Nobody spoke."
    said = ["Dr. Smith went home.", "It was late!", "Nobody spoke."]
    (here / "page.txt").write_text(page)
    (here / "lines.txt").write_text("\n".join(said))
    rest = ("-r", "voice.wav", "--max-codes", "5", *JOBS[command])
    lines = cli.fine(command, "-f", "lines.txt", *rest).records
    assert cli.fine(command, "-f", "page.txt", "--sentences", *rest).records == lines
    assert cli.fine(command, "-t", page, "--sentences", *rest).records == lines
    assert next(record["text"] for record in lines if record["line"] == 2) == said[1]
    cli.fine(command, "-t", page, "--sentences", *rest, "-o", "out.jsonl")
    assert read_jsonl(here / "out.jsonl") == lines
