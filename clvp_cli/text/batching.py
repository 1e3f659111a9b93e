"""Calling a tokenizer: one text or many, pairs, special tokens, truncation, padding, arrays.

Owns the published call protocol of transformers' slow tokenizers (`encode`, `__call__`, `pad`), on top of the few
methods that a tokenizer supplies. Knows nothing of vocabularies or normalisers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any

from clvp_cli.errors import TextError, UsageError
from clvp_cli.text.encoding import (
    BatchEncoding,
    as_lists,
    pad_rows,
    padding_strategy,
    truncate,
    truncation_strategy,
)

UNLIMITED = int(1e30)  # transformers' way to say that a model_max_length is not known


class BatchTokenizer(ABC):
    """The call protocol. A subclass supplies the tokens and the special ids."""

    model_max_length: int
    padding_side: str
    truncation_side: str

    @abstractmethod
    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """The tokens of a text."""

    @abstractmethod
    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or the ids of a list of tokens."""

    @abstractmethod
    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The ids with the begin and end that the tokenizer is set to add."""

    @abstractmethod
    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 for a special token, 0 for any other."""

    @property
    @abstractmethod
    def pad_token_id(self) -> int:
        """The id that fills up short rows."""

    def num_special_tokens_to_add(self, pair: bool = False) -> int:
        """How many ids `build_inputs_with_special_tokens` adds."""
        return len(self.build_inputs_with_special_tokens([], [] if pair else None))

    def encode(self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **kwargs: Any) -> Any:
        """The ids of one text, as `__call__` gives them under "input_ids"."""
        return self._call_one(text, text_pair, add_special_tokens=add_special_tokens, **kwargs)["input_ids"]

    def __call__(
        self, text: Any, text_pair: Any = None, add_special_tokens: bool = True, **kwargs: Any
    ) -> BatchEncoding:
        """Encode a text, or a list of texts as a batch.

        Args:
            text: a string, a list of strings, or with ``is_split_into_words`` a list of words (or of such lists).
            text_pair: a second text for each, appended to the first.
            add_special_tokens: begin and end, where the tokenizer is set to add them.
            kwargs: padding (True, "longest", "max_length"), truncation (True, "longest_first", "only_first",
                "only_second"), max_length, pad_to_multiple_of, padding_side, return_tensors (None, "np", "pt"),
                return_attention_mask, return_token_type_ids, return_special_tokens_mask, return_length,
                is_split_into_words, split_special_tokens.

        Returns:
            input_ids (S,) or (B, S), attention_mask of the same shape, and the other fields asked for.

        Raises:
            TextError: the input is no text, or its rows differ in length where an array is wanted.
            UsageError: an option of no known name or value.
        """
        words = kwargs.get("is_split_into_words", False)
        batched = isinstance(text, (list, tuple)) and (not words or not text or isinstance(text[0], (list, tuple)))
        if not batched:
            return self._call_one(text, text_pair, add_special_tokens=add_special_tokens, **kwargs)
        if text_pair is not None and len(text_pair) != len(text):
            raise TextError(f"{len(text)} texts but {len(text_pair)} second texts")
        if text_pair is None and not words and any(isinstance(item, (list, tuple)) for item in text):
            pairs = [tuple(item) if _is_pair(item) else (item, None) for item in text]
        else:
            pairs = list(zip(text, text_pair or [None] * len(text), strict=True))
        return self._call_batch(pairs, True, add_special_tokens=add_special_tokens, **kwargs)

    def batch_encode_plus(self, batch_text_or_text_pairs: Sequence[Any], **kwargs: Any) -> BatchEncoding:
        """A list of texts, or of (text, second text) pairs, as a batch."""
        return self(list(batch_text_or_text_pairs), **kwargs)

    def encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        """One text; a list of tokens or of ids counts as one text here."""
        return self._call_one(text, text_pair, **kwargs)

    def pad(
        self,
        encoded_inputs: Any,
        padding: bool | str = True,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_attention_mask: bool | None = None,
        return_tensors: str | None = None,
        verbose: bool = True,
    ) -> BatchEncoding:
        """Bring encodings (one, a batch, or a list of single ones) to one length."""
        fields = as_lists(encoded_inputs)
        if not fields["input_ids"]:
            return BatchEncoding(fields)
        single = not isinstance(fields["input_ids"][0], list)
        batch = {key: [value] if single else value for key, value in fields.items()}
        if return_attention_mask is not False and "attention_mask" not in batch:
            batch["attention_mask"] = [[1] * len(row) for row in batch["input_ids"]]
        strategy = padding_strategy(padding)
        if strategy != "do_not_pad":
            length = None if strategy == "longest" else self._wanted_length(max_length, "padding")
            scalars = {key: batch.pop(key) for key in list(batch) if not _is_rows(batch[key])}
            fill = {"input_ids": self.pad_token_id, "special_tokens_mask": 1}
            side = padding_side or self.padding_side
            batch = {**pad_rows(batch, length, pad_to_multiple_of, side, fill), **scalars}
        result = BatchEncoding({key: rows[0] for key, rows in batch.items()} if single else batch)
        return result.convert_to_tensors(return_tensors)

    def _call_one(self, text: Any, text_pair: Any = None, **kwargs: Any) -> BatchEncoding:
        tensors = kwargs.pop("return_tensors", None)
        batch = self._call_batch([(text, text_pair)], False, **kwargs)
        one = BatchEncoding({key: rows[0] for key, rows in batch.items()})
        return one.convert_to_tensors(tensors, prepend_batch_axis=True)

    def _call_batch(
        self,
        pairs: Sequence[tuple[Any, ...]],
        batched: bool,
        *,
        add_special_tokens: bool = True,
        padding: bool | str | None = False,
        truncation: bool | str | None = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: str | None = None,
        return_attention_mask: bool | None = None,
        return_token_type_ids: bool | None = None,
        return_special_tokens_mask: bool = False,
        return_length: bool = False,
        verbose: bool = True,
        **how: Any,
    ) -> BatchEncoding:
        """Encode (text, second text) pairs; ``how`` goes to `_ids` (is_split_into_words, split_special_tokens …)."""
        if truncation is None and max_length is not None and not padding:
            truncation = True  # a max_length by itself asks for truncation, as in the published call
        strategy = truncation_strategy(truncation)
        room = UNLIMITED if strategy == "do_not_truncate" else self._wanted_length(max_length, "truncation")
        rows: dict[str, list[Any]] = {"input_ids": []}
        for text, second_text in pairs:
            first = self._ids(text, batched=batched, **how)
            second = None if second_text is None else self._ids(second_text, batched=batched, **how)
            added = self.num_special_tokens_to_add(second is not None) if add_special_tokens else 0
            excess = len(first) + len(second or []) + added - room
            first, second = truncate(first, second, excess, strategy, self.truncation_side)
            ids = self.build_inputs_with_special_tokens(first, second) if add_special_tokens else first + (second or [])
            rows["input_ids"].append(ids)
            if return_token_type_ids:
                rows.setdefault("token_type_ids", []).append(_token_types(first, second, ids))
            if return_special_tokens_mask:
                mask = self.get_special_tokens_mask(first, second) if add_special_tokens else [0] * len(ids)
                rows.setdefault("special_tokens_mask", []).append(mask)
            if return_length:
                rows.setdefault("length", []).append(len(ids))
        padded = self.pad(rows, padding or False, max_length, pad_to_multiple_of, padding_side, return_attention_mask)
        return padded.convert_to_tensors(return_tensors)

    def _ids(self, text: Any, *, batched: bool, is_split_into_words: bool = False, **how: Any) -> list[int]:
        unknown = set(how) - {"split_special_tokens", "add_prefix_space", "stride"}
        if unknown:
            raise UsageError(f"the tokenizer has no option {', '.join(sorted(unknown))}")
        how.pop("stride", None)  # only counts together with overflowing tokens, which this tokenizer does not return
        if isinstance(text, str):
            return list(self.convert_tokens_to_ids(self.tokenize(text, **how)))
        if isinstance(text, (list, tuple)) and text:
            if all(isinstance(item, int) for item in text):
                return list(text)
            if all(isinstance(item, str) for item in text):
                if is_split_into_words:
                    return list(self.convert_tokens_to_ids(list(chain(*(self.tokenize(w, **how) for w in text)))))
                return list(self.convert_tokens_to_ids(list(text)))
        where = "an item of the batch" if batched else "the input"
        raise TextError(f"{where} is no text: {type(text).__name__}", hint="pass a string or a list of strings")

    def _wanted_length(self, max_length: int | None, purpose: str) -> int:
        if max_length is not None:
            return max_length
        if self.model_max_length >= UNLIMITED:
            if purpose == "truncation":
                return UNLIMITED
            raise UsageError(f"{purpose} to max_length, but no max_length is given", hint="pass max_length")
        return self.model_max_length


def _is_pair(item: Any) -> bool:
    return isinstance(item, (list, tuple)) and len(item) == 2


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(row, list) for row in value)


def _token_types(first: list[int], second: list[int] | None, ids: list[int]) -> list[int]:
    """0 for the first text, 1 for the second, as the base class of the published tokenizer has it."""
    types = [0] * len(first) + [1] * len(second or [])
    return types + types[-1:] * (len(ids) - len(types)) if types else [0] * len(ids)
