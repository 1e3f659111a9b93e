"""Bad input of every kind: a short error with the right exit code, no traceback, nothing written, nothing lost."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from bad_inputs import MARKER, make_all
from command_line import SHORT, TEXT, Cli

FAILED, USAGE = 1, 2
EARLIER = b"what an earlier run made\n"


class Bad(NamedTuple):
    """A command line with @NAME for a file of `bad_inputs`; the exit code, and what the error must say."""

    line: str
    says: str
    code: int = FAILED


SCORE = "score -t Hello @"
SPEAK = "generate-candidates -r @good.wav -n 2 --max-codes 5 -o out.npz"
BEST = "generate -t Hello -r @good.wav -n 2 --max-codes 5 -o out.npz"

CANDIDATES = {
    "npy cut short": Bad(SCORE + "cut.npy", "cut.npy: cut short"),
    "npy cut in its header": Bad(SCORE + "header.npy", "header.npy"),
    "npz cut short": Bad(SCORE + "cut.npz", "cut.npz: not a whole .npz"),
    "jsonl cut short": Bad(SCORE + "cut.jsonl", "line 2"),
    "units cut short": Bad(SCORE + "cut.txt", "row 1"),
    "parquet cut short": Bad(SCORE + "cut.parquet", "cut.parquet"),
    "float array": Bad(SCORE + "float.npy", "float"),
    "array with NaN": Bad(SCORE + "nan.npy", "nan.npy"),
    "array of three dimensions": Bad(SCORE + "deep.npy", "3 dimensions"),
    "array without rows": Bad(SCORE + "none.npy", "no candidates"),
    "array with an empty candidate": Bad(SCORE + "empty-row.npy", "row 0"),
    "array with a code out of range": Bad(SCORE + "outside.npy", "row 0: code 9000"),
    "array with a negative code": Bad(SCORE + "negative.npy", "row 0"),
    "ragged object array": Bad(SCORE + "ragged.npy", "refused"),
    "npz without codes": Bad(SCORE + "unnamed.npz", "no array called codes"),
    "npz with impossible lengths": Bad(SCORE + "lengths.npz", "row 0"),
    "npz from stdin": Bad("score -t Hello -", "stdin", FAILED),
    "broken JSON": Bad(SCORE + "broken.jsonl", "line 2"),
    "nested codes": Bad(SCORE + "nested.jsonl", "row 0"),
    "a float among codes": Bad(SCORE + "float.jsonl", "2.5"),
    "NaN in JSON": Bad(SCORE + "nan.jsonl", "NaN"),
    "codes that are text": Bad(SCORE + "text.jsonl", "not a list"),
    "a record without codes": Bad(SCORE + "codeless.jsonl", "codes"),
    "a JSON array": Bad(SCORE + "array.jsonl", "line 1"),
    "an empty candidate": Bad(SCORE + "empty-codes.jsonl", "empty"),
    "candidates that name no text": Bad("score @textless.jsonl", "names no text"),
    "words for units": Bad(SCORE + "words.txt", "not a candidate file"),
    "an empty file": Bad(SCORE + "empty.npy", "empty"),
    "a gzip": Bad(SCORE + "compressed.jsonl.gz", "compressed"),
    "a pickle as npy": Bad(SCORE + "pickle.npy", "pickle"),
    "a pickle as npz": Bad(SCORE + "pickle.npz", "pickle"),
    "a pickle as jsonl": Bad(SCORE + "pickle.jsonl", "pickle"),
    "no such candidates": Bad(SCORE + "nowhere.npy", "no such file"),
    "a directory for candidates": Bad(SCORE + "directory", "is a directory"),
    "broken audio under another name": Bad("score -t Hello @renamed", "renamed"),
    "one good file and one bad": Bad("score -t Hello @good.npy @cut.npz", "cut.npz"),
    "stdin twice": Bad("score -t Hello - -", "once", USAGE),
}
TEXTS = {
    "empty text": Bad(SPEAK + " -t ''", "empty"),
    "blank text": Bad(SPEAK + " -t '   '", "empty"),
    "a text of over 401 ids": Bad(SPEAK + " -t " + "zq" * 300, "401"),
    "a text of symbols alone": Bad(SPEAK + " -t ☃", "empty once normalised"),
    "a text of unknown characters alone": Bad(SPEAK + " -t 中 --normalizer hf", "empty once normalised"),
    "a text of the unknown token": Bad(SPEAK + " -t [UNK]", "vocabulary"),
    "a text in Latin-1": Bad(SPEAK + " -t caf\udce9", "not text in the terminal's encoding", USAGE),
    "a text in Latin-1 to tokenize": Bad("tokenize caf\udce9 -o out.jsonl", "not text in the terminal's", USAGE),
    "both -t and -f": Bad(SPEAK + " -t Hello -f @lines.txt", "exclude", USAGE),
    "neither -t nor -f": Bad(SPEAK, "text is needed", USAGE),
    "a text file without text": Bad(SPEAK + " -f @blank.txt", "no text", USAGE),
    "no such text file": Bad(SPEAK + " -f @nowhere.txt", "no such file"),
    "a text file in Latin-1": Bad("tokenize -f @latin.txt -o out.jsonl", "not UTF-8"),
    "a text file in UTF-16": Bad("tokenize -f @utf16.txt -o out.jsonl", "UTF-16"),
    "a binary for text": Bad("tokenize -f @binary.txt -o out.jsonl", "line 1"),
    "ids that are none": Bad("tokenize --decode hello -o out.jsonl", "not a list of ids"),
    "ids out of range": Bad("tokenize --decode 99999 -o out.jsonl", "vocabulary"),
    "many texts for one npz": Bad("generate-candidates -f @lines.txt -r @good.wav -o out.npz", "jsonl", USAGE),
    "many texts for one winner": Bad("generate -f @lines.txt -r @good.wav -o out.npz", "{line}", USAGE),
    "many texts for one score": Bad("score @good.npy -f @lines.txt -o out.jsonl", "2 texts", USAGE),
    "an unknown normaliser": Bad("tokenize hello --normalizer french", "english | hf | tortoise", USAGE),
}
SETTINGS = {
    "an unknown key": Bad(BEST + " -c @typo.yaml", "did you mean 'sampling.temperature'", USAGE),
    "a value of the wrong type": Bad(BEST + " -c @type.yaml", "sampling.n", USAGE),
    "a list for settings": Bad(BEST + " -c @list.yaml", "mapping", USAGE),
    "a value for a group": Bad(BEST + " -c @group.yaml", "sampling", USAGE),
    "broken YAML": Bad(BEST + " -c @broken.yaml", "not YAML", USAGE),
    "no such YAML file": Bad(BEST + " -c @nowhere.yaml", "no such file", USAGE),
    "no configuration of that name": Bad(BEST + " -c fastest", "fast", USAGE),
    "no candidates asked for": Bad(BEST + " -n 0", "sampling.n", USAGE),
    "a negative number of candidates": Bad(BEST + " -n -3", "sampling.n", USAGE),
    "a number that is none": Bad(BEST + " -n three", "integer", USAGE),
    "k of 0": Bad(BEST + " -k 0", "keep 0", USAGE),
    "k over N": Bad(BEST + " -k 3", "keep 3 of 2", USAGE),
    "k over the candidates of a file": Bad("score -t Hello @good.npy -k 3 -o out.jsonl", "keep 3 of 2", USAGE),
    "k of 0 for a file": Bad("score -t Hello @good.npy -k 0 -o out.jsonl", "-k 0", USAGE),
    "temperature 0": Bad(BEST + " --temperature 0", "temperature", USAGE),
    "a negative temperature": Bad(BEST + " --temperature -1", "temperature", USAGE),
    "temperature NaN": Bad(BEST + " --temperature nan", "temperature", USAGE),
    "top-p 0": Bad(BEST + " --top-p 0", "top_p", USAGE),
    "top-p over 1": Bad(BEST + " --top-p 1.5", "top_p", USAGE),
    "a negative top-k": Bad(BEST + " --top-k -1", "top_k", USAGE),
    "no codes at all": Bad(BEST + " --max-codes 0", "max_codes", USAGE),
    "min over max": Bad(BEST + " --min-codes 9", "min_codes", USAGE),
    "a negative seed": Bad(BEST + " --seed -1", "seed", USAGE),
    "an unknown device": Bad(BEST + " --device tpu", "tpu", USAGE),
    "a device that is not there": Bad(BEST + " --device cuda:77", "cuda:77", USAGE),
    "an unknown precision": Bad(BEST + " --dtype int5", "float32", USAGE),
    "an unknown order": Bad("score -t Hello @good.npy --order bogus", "bogus", USAGE),
    "an unknown signal": Bad("score -t Hello @good.npy --rank-by beauty", "beauty", USAGE),
    "an unknown signal before generating": Bad(BEST + " --rank-by clvp+beauty", "beauty", USAGE),
    "a ranking that is no sum": Bad("score -t Hello @good.npy --rank-by 2*", "rank by", USAGE),
    "a padding that is none": Bad("score -t Hello @good.npy --pad wide", "own", USAGE),
    "a padding beyond any candidate": Bad("score -t Hello @good.npy --pad 8193", "scoring.pad is 8193", USAGE),
    "a padding beyond any, before generating": Bad(BEST + " --pad 8193", "scoring.pad is 8193", USAGE),
    "an unknown flag": Bad("score -t Hello @good.npy --colour", "--colour", USAGE),
    "an unknown command": Bad("sing", "sing", USAGE),
    "seconds and --full": Bad("extract-mels @good.wav --full --seconds 2 -o out.npz", "exclude", USAGE),
    "--resume of nothing": Bad(BEST + " --resume", "--resume", USAGE),
}
VOICES = {
    "no reference": Bad("generate -t Hello -n 2 -o out.npz", "no reference voice", USAGE),
    "no such reference": Bad("generate -t Hello -r @nowhere.wav -o out.npz", "no such file"),
    "a directory for a reference": Bad("generate -t Hello -r @directory -o out.npz", "directory"),
    "a silent reference": Bad("generate -t Hello -r @silent.wav -o out.npz", "silence"),
    "a reference with NaN": Bad("generate -t Hello -r @nan.wav -o out.npz", "NaN"),
    "a reference without samples": Bad("generate -t Hello -r @none.wav -o out.npz", "none.wav"),
    "an empty file for a reference": Bad("generate -t Hello -r @empty.wav -o out.npz", "empty"),
    "text for a reference": Bad("generate -t Hello -r @words.wav -o out.npz", "not a sound file"),
    "a wav cut short": Bad("extract-mels @cut.wav -o out.npz", "cut short"),
    "a flac cut short": Bad("extract-mels @cut.flac -o out.npz", "cut.flac"),
    "a saved voice of another width": Bad("generate -t Hello -r @narrow.npz -o out.npz", "64"),
    "a saved voice with NaN": Bad("generate -t Hello -r @nan-voice.npz -o out.npz", "not finite"),
    "a saved voice beyond all voices": Bad("generate -t Hello -r @huge-voice.npz -o out.npz", "holds 1e+300"),
    "an .npz without a voice": Bad("generate -t Hello -r @voiceless.npz -o out.npz", "no voice"),
    "a voice from nothing": Bad("voice -o out.npz", "--random", USAGE),
    "a random voice from clips": Bad("voice @good.wav --random -o out.npz", "no clips", USAGE),
    "a random voice of a model without": Bad("voice --random -o out.npz", "random voice"),
    "a silent file to encode": Bad("encode @silent.wav -o out.npz", "silence"),
}
OUTPUTS = {
    "an unknown kind of output": Bad(BEST.replace("out.npz", "out.mat"), ".npz", USAGE),
    "an output without a suffix": Bad(BEST.replace("out.npz", "out"), ".npz", USAGE),
    "an output in no directory": Bad(BEST.replace("out.npz", "nowhere/out.npz"), "does not exist"),
    "a directory for output": Bad("score -t Hello @good.npy -o @directory", "is a directory"),
    "an output below a file": Bad(BEST.replace("out.npz", "@good.wav/out.npz"), "directory"),
    "an output where none can be made": Bad(BEST.replace("out.npz", "/proc/out.npz"), "/proc/out.npz"),
    "a full disk for candidates": Bad(SPEAK.replace("out.npz", "@full.jsonl") + " -t Hello", "full"),
    "a full disk for scores": Bad("score -t Hello @good.npy -o @full.jsonl", "full"),
    "candidates saved nowhere": Bad(BEST + " --save-candidates nowhere/all.npz", "does not exist"),
    "latents of another kind": Bad(BEST + " --latents latents.csv", ".npz", USAGE),
    "audio of another kind": Bad(BEST + " --wav best.mp3", ".wav", USAGE),
    "mels of another kind": Bad("extract-mels @good.wav -o out.csv", ".npy", USAGE),
    "two files in one npy": Bad("extract-mels @good.wav @good.flac -o out.npy", "one", USAGE),
    "a voice of another kind": Bad("voice @good.wav -o out.npy", ".npz", USAGE),
    "speech to stdout": Bad("decode @good.npy -o -", "where", USAGE),
    "speech of another kind": Bad("decode @good.npy -o out.flac", ".wav", USAGE),
    "scores of another kind": Bad("score -t Hello @good.npy -o out.csv", ".jsonl", USAGE),
}
MODELS = {
    "no such model": Bad(BEST + " -m nobody/nothing", "nobody/nothing"),
    "a model directory without weights": Bad(BEST + " -m @weightless", "weightless"),
    "an empty model directory": Bad(BEST + " -m @empty-model", "empty-model"),
    "a missing key": Bad(BEST + " -m @missing", "text_encoder_model.projection.weight"),
    "an extra key": Bad(BEST + " -m @extra", "something.else"),
    "a misshapen key": Bad(BEST + " -m @misshapen", "text_encoder_model.projection.weight"),
    "safetensors cut short": Bad(BEST + " -m @cut-model", "cut-model"),
    "safetensors with a monstrous header": Bad(BEST + " -m @header-model", "header-model"),
    "a broken config.json": Bad(BEST + " -m @broken-config", "config.json", USAGE),
    "a config.json of wrong types": Bad(BEST + " -m @wrong-config", "hidden_size", USAGE),
    "a pickle with code as .bin": Bad(BEST + " -m @hostile-bin", "pytorch_model.bin"),
    "a pickle with code as .pth": Bad(BEST + " -m @hostile-pth", "autoregressive.pth"),
    "a text file for a model": Bad(BEST + " -m @lines.txt", "lines.txt"),
    "encoding without a codec": Bad("encode @good.wav -m @plain -o out.npz", "no codec"),
    "decoding without a codec": Bad("decode @good.npy -m @plain -o out.wav", "no codec"),
    "audio candidates without a codec": Bad("score @good.wav -t Hello -m @plain", "no codec"),
    "speech without a codec": Bad(BEST + " --wav out.wav -m @plain", "no codec"),
}
TABLE = CANDIDATES | TEXTS | SETTINGS | VOICES | OUTPUTS | MODELS


@pytest.fixture(scope="session")
def materials(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, plain_model: Path) -> Path:
    """The files of `bad_inputs`."""
    at = tmp_path_factory.mktemp("bad")
    make_all(at, tiny_model, plain_model)
    (at / "renamed").write_bytes(b"RIFF" + bytes(40))
    (at / "full.jsonl").symlink_to("/dev/full")
    return at


@pytest.mark.parametrize("name", TABLE)
def test_bad_input_is_a_short_error_that_harms_nothing(name: str, cli: Cli, materials: Path, tmp_path: Path) -> None:
    """One or two lines on stderr say what was wrong; the exit code fits; earlier files stay; nothing new appears."""
    import shlex

    bad = TABLE[name]
    if "@full" in bad.line and not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    if "cut.parquet" in bad.line:
        pytest.importorskip("pyarrow", reason="Parquet is an optional extra")
    for earlier in ("out.npz", "out.npy", "out.jsonl", "out.wav"):
        (tmp_path / earlier).write_bytes(EARLIER)
    before = sorted(tmp_path.rglob("*")), sorted(materials.rglob("*"))
    stdin = (materials / "good.npz").read_bytes() if name == "npz from stdin" else b""
    result = cli(*shlex.split(bad.line.replace("@", f"{materials}/")), stdin=stdin)
    assert result.code == bad.code, result
    assert result.out == "" or (bad.says == "full" and result.records)  # what was said before the disk was full
    assert 1 <= len(result.complaint) <= 2, result.err
    assert bad.says in " ".join(result.complaint)
    assert "Traceback" not in result.err and "unexpected" not in result.err
    assert all(len(line) < 500 for line in result.complaint)
    assert (sorted(tmp_path.rglob("*")), sorted(materials.rglob("*"))) == before
    assert all(file.read_bytes() == EARLIER for file in tmp_path.iterdir())
    assert not (materials / MARKER).exists()


def test_stereo_is_no_error(cli: Cli, materials: Path) -> None:
    """A stereo reference at another rate is mixed down and resampled without a word of complaint."""
    result = cli.fine("generate", "-t", TEXT, "-r", materials / "stereo.wav", "-n", "1", *SHORT)
    assert result.complaint == [] and len(result.records) == 1


def test_a_read_only_output_is_refused_before_work(cli: Cli, materials: Path, tmp_path: Path) -> None:
    """A file that may not be written is not replaced, though its directory would allow it."""
    import os

    if os.geteuid() == 0:
        pytest.skip("nothing is read-only for root")
    kept = tmp_path / "kept.jsonl"
    kept.write_bytes(EARLIER)
    kept.chmod(0o400)
    result = cli("score", "-t", "Hello", materials / "good.npy", "-o", kept)
    assert result.code == FAILED and "permission denied" in result.complaint[0]
    assert kept.read_bytes() == EARLIER


def test_a_directory_that_may_not_be_written_is_refused_before_work(
    cli: Cli, materials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the directory is read-only, the error comes before anything is generated."""
    import os

    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode & os.W_OK == 0 and real(path, mode))
    monkeypatch.setattr("clvp_cli.pipeline.Clvp.candidates", None)  # nothing may come this far
    result = cli("generate", "-t", TEXT, "-r", materials / "good.wav", "-o", "out.npz")
    assert result.code == FAILED and "permission denied" in result.complaint[0]
