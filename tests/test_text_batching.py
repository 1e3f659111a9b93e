"""The call protocol: batches, padding, truncation, arrays. Expected rows were taken from transformers 4.46.3."""

from __future__ import annotations

import numpy as np
import pytest

from clvp_cli.errors import TextError, UsageError
from clvp_cli.text.encoding import BatchEncoding
from clvp_cli.text.tokenizer import ClvpTokenizer

BATCH = ["he", "Hello world"]


@pytest.fixture(scope="module")
def tokenizer() -> ClvpTokenizer:
    return ClvpTokenizer()


def test_one_text_gives_flat_lists_and_several_give_rows(tokenizer: ClvpTokenizer) -> None:
    """Fields are reached by key or attribute."""
    one = tokenizer("he")
    assert one == {"input_ids": [62], "attention_mask": [1]}
    assert one.input_ids == one["input_ids"]
    assert tokenizer(BATCH).input_ids == [[62], [62, 84, 28, 2, 179, 79]]
    assert "attention_mask" not in tokenizer("he", return_attention_mask=False)
    with pytest.raises(AttributeError):
        _ = one.labels


def test_pads_to_the_longest_a_multiple_or_a_length(tokenizer: ClvpTokenizer) -> None:
    """Padding is [STOP] with a mask of 0, on the side asked for."""
    padded = tokenizer(BATCH, padding=True)
    assert padded.input_ids[0] == [62, 0, 0, 0, 0, 0]
    assert padded.attention_mask == [[1, 0, 0, 0, 0, 0], [1] * 6]
    assert tokenizer("he", padding="max_length", max_length=3).input_ids == [62, 0, 0]
    assert tokenizer(BATCH, padding=True, pad_to_multiple_of=8).input_ids[0] == [62] + [0] * 7
    assert tokenizer(BATCH, padding=True, padding_side="left").input_ids[0] == [0, 0, 0, 0, 0, 62]


def test_truncates(tokenizer: ClvpTokenizer) -> None:
    """To max_length, which asks for truncation by itself; of a pair the longer text loses first."""
    assert tokenizer("Hello world", max_length=2, truncation=True).input_ids == [62, 84]
    assert tokenizer("Hello world", max_length=2).input_ids == [62, 84]
    assert len(tokenizer("Hello world", max_length=2, truncation=False).input_ids) == 6
    assert tokenizer("Hello world", "he", max_length=3).input_ids == [62, 84, 62]
    assert ClvpTokenizer(add_bos_token=True)("Hello world", max_length=2).input_ids == [255, 62]
    assert ClvpTokenizer(truncation_side="left")("Hello world", max_length=2).input_ids == [179, 79]


def test_gives_arrays_and_tensors(tokenizer: ClvpTokenizer) -> None:
    """ "np" and "pt" give int64 with a batch axis, and `to` moves tensors."""
    arrays = tokenizer("Hello world", return_tensors="np")
    assert (arrays.input_ids.shape, arrays.input_ids.dtype) == ((1, 6), np.int64)
    tensors = tokenizer(BATCH, padding=True, return_tensors="pt")
    assert tuple(tensors.to("cpu").input_ids.shape) == (2, 6)
    assert str(tensors.input_ids.dtype) == "torch.int64"
    assert tokenizer.batch_decode(tensors.input_ids, skip_special_tokens=True) == ["he", "hello world"]
    assert tokenizer("", return_tensors="np").input_ids.shape == (1, 0)


def test_rows_of_several_lengths_make_no_array(tokenizer: ClvpTokenizer) -> None:
    """The error says to pad."""
    with pytest.raises(TextError, match="differ in length") as caught:
        tokenizer(BATCH, return_tensors="np")
    assert caught.value.hint == "pass padding=True"


def test_takes_words_pairs_tokens_and_further_fields(tokenizer: ClvpTokenizer) -> None:
    """Words are tokenized one by one, (text, text) rows are pairs, and lengths and types come on request."""
    assert tokenizer(["he", "world"], is_split_into_words=True).input_ids == [62, 179, 79]
    assert tokenizer([("he", "he"), ("he", "world")]).input_ids == [[62, 62], [62, 179, 79]]
    assert tokenizer.encode_plus(["he", "ll"]).input_ids == [62, 84]
    assert tokenizer.batch_encode_plus(BATCH).input_ids == tokenizer(BATCH).input_ids
    more = tokenizer("he", "world", return_token_type_ids=True, return_length=True)
    assert (more.token_type_ids, more.length) == ([0, 1, 1], 3)
    assert tokenizer.encode("[STOP]", split_special_tokens=True) != [0]


def test_pads_what_was_encoded_before(tokenizer: ClvpTokenizer) -> None:
    """`pad` takes one encoding, a batch, or a list of single ones."""
    rows = [tokenizer(text) for text in BATCH]
    assert tokenizer.pad(rows) == tokenizer(BATCH, padding=True)
    assert tokenizer.pad(rows, return_tensors="np").input_ids.shape == (2, 6)
    assert tokenizer.pad({"input_ids": [62]}, padding="max_length", max_length=2).attention_mask == [1, 0]
    assert tokenizer.pad(BatchEncoding(input_ids=[])) == {"input_ids": []}
    with pytest.raises(UsageError, match="input_ids"):
        tokenizer.pad({"ids": [1]})


@pytest.mark.parametrize(
    "options",
    [{"padding": "most"}, {"padding": "max_length"}, {"truncation": "half"}, {"return_tensors": "jax"}, {"trim": True}],
)
def test_options_of_no_known_name_or_value_are_usage_errors(
    tokenizer: ClvpTokenizer, options: dict[str, object]
) -> None:
    """Nothing is ignored in silence."""
    with pytest.raises(UsageError):
        tokenizer("he", **options)


@pytest.mark.parametrize("text", [None, 5, [None], [5.0], [["he", None, "x"]]])
def test_what_is_no_text_is_an_error(tokenizer: ClvpTokenizer, text: object) -> None:
    """The error says what came in place of a text."""
    with pytest.raises(TextError, match="no text"):
        tokenizer(text)


def test_lists_of_texts_and_pairs_must_match(tokenizer: ClvpTokenizer) -> None:
    """One second text for each first one."""
    with pytest.raises(TextError, match="2 texts but 1 second"):
        tokenizer(BATCH, ["he"])
