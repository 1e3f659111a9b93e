"""The tokenizer under its published names. Expected ids were taken from transformers 4.46.3 and tortoise-tts 3.0.0."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from clvp_cli.errors import InputError, TextError, UsageError
from clvp_cli.text.tokenizer import ClvpTokenizer, load_tokenizer
from clvp_cli.text.vocabulary import embedded_vocabulary

LUCKY = "hello and this is an example text and I have $1000. my lucky number is 12345."
# fmt: off
LUCKY_IDS = [
    62, 84, 28, 2, 53, 2, 147, 2, 54, 2, 43, 2, 169, 122, 29, 64, 2, 136, 37, 33, 2, 53, 2, 22, 2, 148, 2, 110, 2, 40,
    206, 53, 2, 134, 84, 59, 32, 9, 2, 125, 2, 25, 34, 197, 38, 2, 27, 231, 15, 44, 2, 54, 2, 33, 100, 25, 76, 2, 40,
    206, 53, 7, 2, 40, 46, 18, 2, 21, 97, 17, 219, 2, 87, 210, 8, 19, 22, 76, 9,
]
# fmt: on


@pytest.fixture(scope="module")
def tokenizer() -> ClvpTokenizer:
    return load_tokenizer(None)


@pytest.mark.parametrize("normalizer", ["english", "hf"])
@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Hello world", [62, 84, 28, 2, 179, 79]),
        (" Hello world", [2, 62, 84, 28, 2, 179, 79]),
        ("This is an example text.", [147, 2, 54, 2, 43, 2, 169, 122, 29, 64, 2, 136, 37, 33, 9]),
        ("'these'", [4, 33, 21, 61, 18, 4]),
        (LUCKY, LUCKY_IDS),
        ("a[STOP]b", [14, 0, 15]),
        ("<|endoftext|> [UNK]", [255, 2, 1]),
        ("", []),
    ],
)
def test_gives_the_published_ids(text: str, ids: list[int], normalizer: str) -> None:
    """The ids are those of the published tokenizer, special tokens in the text kept whole."""
    assert load_tokenizer(None, normalizer=normalizer).encode(text) == ids


def test_gives_tortoises_ids() -> None:
    """Tortoise's scheme keeps a quote apart from its word, and spells special tokens written in the text."""
    tortoise = load_tokenizer(None, normalizer="tortoise", scheme="tortoise")
    assert tortoise.encode("'these'") == [4, 42, 66, 4]
    assert tortoise.encode("Hello world") == [62, 84, 28, 2, 179, 79]
    assert tortoise.encode("[STOP]") == [1, 32, 51, 29, 1]
    assert tortoise.decode([62, 84, 28, 2, 2, 0, 1, 179, 79]) == "hello  world"


def test_tokens_that_the_vocabulary_lacks_have_the_id_of_unk() -> None:
    """A piece stays as it is among the tokens, and is [UNK] among the ids, one a byte."""
    raw = ClvpTokenizer(normalizer=None)
    assert raw.tokenize("aé ~") == ["a", "Ã", "©", "[SPACE]", "~"]
    assert raw.encode("aé ~") == [14, 1, 1, 2, 1]
    with pytest.raises(TextError, match="lone surrogate"):
        raw.encode("a\ud800")


def test_sizes_and_special_tokens(tokenizer: ClvpTokenizer) -> None:
    """255 entries in the file, and the begin token after them."""
    assert (tokenizer.vocab_size, len(tokenizer), len(tokenizer.get_vocab())) == (255, 256, 256)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (255, 0)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1)
    assert tokenizer.all_special_ids == [255, 0, 1]
    assert tokenizer.special_tokens_map["bos_token"] == "<|endoftext|>"
    assert tokenizer.get_added_vocab() == {"<|endoftext|>": 255, "[STOP]": 0, "[UNK]": 1}


def test_converts_between_tokens_and_ids(tokenizer: ClvpTokenizer) -> None:
    """Both ways, one or many; an id that is none is an error that names it."""
    assert tokenizer.convert_tokens_to_ids("[SPACE]") == 2
    assert tokenizer.convert_tokens_to_ids(["he", "nonsense"]) == [62, 1]
    assert tokenizer.convert_ids_to_tokens(62) == "he"
    assert tokenizer.convert_ids_to_tokens(np.array([62, 0, 255]), skip_special_tokens=True) == ["he"]
    with pytest.raises(TextError, match="9999 is not an id"):
        tokenizer.convert_ids_to_tokens([62, 9999])


def test_decodes(tokenizer: ClvpTokenizer) -> None:
    """[SPACE] and [STOP] are blanks, [UNK] goes, runs of blanks are one; without cleaning the tokens stand."""
    ids = [62, 84, 28, 2, 1, 2, 179, 79, 0, 0, 0, 0, 0]
    assert tokenizer.decode(ids) == "hello world "
    assert tokenizer.decode(np.array(ids), skip_special_tokens=True) == "hello world"
    assert tokenizer.decode([62, 2, 255], clean_up_tokenization_spaces=False) == "he[SPACE]<|endoftext|>"
    assert tokenizer.decode(62) == "he"
    assert tokenizer.batch_decode([[62], [179, 79]]) == ["he", "world"]
    with pytest.raises(TextError, match="whole numbers"):
        tokenizer.decode([1.5])


def test_begin_and_end_are_added_where_asked() -> None:
    """add_bos_token and add_eos_token act through build_inputs_with_special_tokens, and the mask marks them."""
    both = ClvpTokenizer(add_bos_token=True, add_eos_token=True)
    assert both.encode("he") == [255, 62, 0]
    assert both.encode("he", add_special_tokens=False) == [62]
    assert both.encode("he", "he") == [255, 62, 0, 255, 62, 0]
    assert both("he", return_special_tokens_mask=True)["special_tokens_mask"] == [1, 0, 1]
    assert both.get_special_tokens_mask([255, 62, 0], already_has_special_tokens=True) == [1, 0, 1]


def test_a_prefix_space_makes_the_first_word_like_any_other() -> None:
    """add_prefix_space puts a blank before a text that has none."""
    assert ClvpTokenizer(add_prefix_space=True).encode("Hello world") == [2, 62, 84, 28, 2, 179, 79]
    assert load_tokenizer(None).tokenize(" he", add_prefix_space=True) == ["[SPACE]", "he"]


def test_added_tokens_are_kept_whole(tokenizer: ClvpTokenizer) -> None:
    """A new token gets the next id and is no longer split."""
    more = ClvpTokenizer()
    assert more.add_tokens(["<breath>", "he"]) == 1
    assert more.encode("hi <breath>") == [21, 22, 2, 256]
    assert tokenizer.encode("<breath>") != [256]


def test_encodes_for_speech(tokenizer: ClvpTokenizer) -> None:
    """The pipeline gets int64 ids, up to the model's 401."""
    ids = tokenizer.encode_for_speech("Hello world")
    assert ids.dtype == np.int64
    assert ids.tolist() == [62, 84, 28, 2, 179, 79]
    assert len(tokenizer.encode_for_speech("x" * 401)) == 401


def test_refuses_what_cannot_be_spoken(tokenizer: ClvpTokenizer) -> None:
    """Too long, empty once normalised, unknown throughout, or no text at all: an error that says so."""
    with pytest.raises(TextError, match="402 ids, but the model reads at most 401") as caught:
        tokenizer.encode_for_speech("x" * 402)
    assert caught.value.hint == "split the text, or read it sentence by sentence"
    for text in ("", "  \n", "😀"):
        with pytest.raises(TextError, match="empty"):
            tokenizer.encode_for_speech(text)
    with pytest.raises(TextError, match="in the vocabulary"):
        load_tokenizer(None, normalizer="hf").encode_for_speech("~ ~")
    for nothing in (None, 5, b"he"):
        with pytest.raises(TextError):
            tokenizer.encode_for_speech(nothing)  # type: ignore[arg-type]


def test_saves_and_loads(tmp_path: Path) -> None:
    """A saved tokenizer comes back with its settings, and its files are those that transformers reads."""
    saved = ClvpTokenizer(add_bos_token=True, normalizer="hf", model_max_length=404)
    saved.add_tokens(["<breath>"])
    names = sorted(Path(path).name for path in saved.save_pretrained(tmp_path / "new"))
    assert names == ["merges.txt", "tokenizer_config.json", "vocab.json"]
    loaded = ClvpTokenizer.from_pretrained(tmp_path / "new")
    assert loaded.encode("1st <breath>") == saved.encode("1st <breath>")
    assert (loaded.normalizer_name, loaded.model_max_length) == ("hf", 404)
    assert load_tokenizer(tmp_path / "new", normalizer="english").normalize("1st") == "first"
    assert "normalizer" not in json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())
    assert [Path(path).name for path in saved.save_vocabulary(tmp_path, "my")] == ["my-vocab.json", "my-merges.txt"]
    again = ClvpTokenizer(tmp_path / "my-vocab.json", tmp_path / "my-merges.txt")
    assert again.get_vocab()["[STOP]"] == 0


def test_loads_a_configuration_that_transformers_saved(tmp_path: Path) -> None:
    """Special tokens written as objects, and keys that mean nothing here, are fine."""
    ClvpTokenizer().save_vocabulary(tmp_path)
    stop = {"__type": "AddedToken", "content": "[STOP]", "lstrip": False}
    config = {"eos_token": stop, "pad_token": "[STOP]", "processor_class": "ClvpProcessor", "tokenizer_class": "x"}
    config["added_tokens_decoder"] = {"0": stop, "255": {"content": "<|endoftext|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    assert ClvpTokenizer.from_pretrained(tmp_path).encode("a[STOP]") == [14, 0]
    (tmp_path / "tokenizer_config.json").write_text("[1", encoding="utf-8")
    with pytest.raises(InputError, match="tokenizer_config"):
        ClvpTokenizer.from_pretrained(tmp_path)


def test_loads_a_tortoise_file_and_falls_back_to_the_embedded_tables(tmp_path: Path) -> None:
    """A directory without a vocabulary has the published one; half a vocabulary is an error."""
    assert load_tokenizer(tmp_path).encode("he") == [62]
    with pytest.raises(InputError, match="no tokenizer in"):
        ClvpTokenizer.from_pretrained(tmp_path)
    vocabulary = embedded_vocabulary()
    model = {"vocab": {**vocabulary.ids, "z": 300}, "merges": [" ".join(pair) for pair in vocabulary.merges]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": model}), encoding="utf-8")
    assert load_tokenizer(tmp_path).encode("hez") == [62, 300]
    assert ClvpTokenizer.from_pretrained(tmp_path / "tokenizer.json").encode("z") == [300]
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary.ids), encoding="utf-8")
    with pytest.raises(InputError, match=r"has no merges\.txt"):
        load_tokenizer(tmp_path)


def test_takes_another_vocabulary(tmp_path: Path) -> None:
    """Merges whose pieces have no id, and a vocabulary without [SPACE], work as they do in transformers."""
    (tmp_path / "v.json").write_text(json.dumps({"l": 0, "o": 1, "w": 2, "er": 3, "Ġ": 4}), encoding="utf-8")
    (tmp_path / "m.txt").write_text("l o\nlo w\ne r", encoding="utf-8")
    other = ClvpTokenizer(tmp_path / "v.json", tmp_path / "m.txt")
    assert other.tokenize("lower er") == ["low", "er", "Ġ", "er"]
    assert other.encode("lower er") == [other.unk_token_id, 3, 4, 3]
    assert other.unk_token_id not in range(5)


def test_settings_that_are_none_are_usage_errors() -> None:
    """A scheme of no known name, and one file of two, are refused at once."""
    with pytest.raises(UsageError, match="scheme"):
        ClvpTokenizer(scheme="bert")
    with pytest.raises(UsageError, match="two files"):
        ClvpTokenizer("vocab.json")


def test_loads_neither_torch_nor_tokenizers_before_the_first_text() -> None:
    """Importing the module is light; encoding loads the tokenizers library, never torch."""
    code = (
        "import sys; import clvp_cli.text.tokenizer as t, clvp_cli.text.sentences; "
        "assert not {'torch', 'tokenizers', 'anyascii', 'numpy'} & set(sys.modules); "
        "t.load_tokenizer(None).encode('hello'); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("model_max_length", value) for value in ('"x"', "1e999", "NaN", "[1]")),
        *(("errors", value) for value in ('"no such"', '"\\u0000"', "5")),
        *(("clvp_normalizer", value) for value in ("[]", "{}", "5")),
        *(("padding_side", value) for value in ('"top"', "1")),
        *(("added_tokens_decoder", value) for value in ("[]", '{"x": "a"}', '{"-1": "a"}', '{"1": "a", "2": {}}')),
        *(("bos_token", value) for value in ("5", '{"content": 5}', '""')),
        *(("add_bos_token", value) for value in ('"x"', "[" * 5000 + "]" * 5000)),
    ],
)
def test_settings_of_the_wrong_kind_are_one_line(tmp_path: Path, key: str, value: str) -> None:
    """A tokenizer_config.json with a value that cannot be meant is an InputError, whatever the value is."""
    ClvpTokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(f'{{"{key}": {value}}}')
    with pytest.raises(InputError) as caught:
        ClvpTokenizer.from_pretrained(tmp_path)
    assert len(caught.value.message) < len(str(tmp_path)) + 250
