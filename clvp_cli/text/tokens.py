"""Tokens and their ids: the vocabulary file's, the special ones, and those added later.

Owns the two-way table and the published names for special tokens. Knows nothing of texts.
"""

from __future__ import annotations

import re
from typing import Any

from clvp_cli.errors import TextError
from clvp_cli.text import saving
from clvp_cli.text.batching import BatchTokenizer

SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "pad_token")


class TokenTable(BatchTokenizer):
    """The table of a tokenizer; the subclass sets these attributes and then adds its special tokens."""

    encoder: dict[str, int]
    decoder: dict[int, str]
    bos_token: str
    eos_token: str
    unk_token: str
    pad_token: str
    _added: dict[str, int]
    _extra_special: list[str]
    _whole: re.Pattern[str]

    @property
    def vocab_size(self) -> int:
        """Entries of the vocabulary file, without added tokens: 255 in the published model."""
        return len(self.encoder)

    def __len__(self) -> int:
        return len(self.get_vocab())

    def get_vocab(self) -> dict[str, int]:
        """Every token with its id, added ones included."""
        return {**self.encoder, **self._added}

    def get_added_vocab(self) -> dict[str, int]:
        """The special and other added tokens, which are never split."""
        return dict(self._added)

    def add_tokens(self, new_tokens: Any, special_tokens: bool = False) -> int:
        """Keep these tokens whole from now on; those without an id get the next ones. Returns how many got one."""
        known = self.get_vocab()
        created = 0
        for token in map(saving.token_text, [new_tokens] if isinstance(new_tokens, str) else new_tokens):
            if token not in known:
                known[token] = max(len(known), max(known.values()) + 1)
                created += 1
            self._added[token] = known[token]
            if special_tokens and token not in self.all_special_tokens:
                self._extra_special.append(token)
        longest_first = sorted(self._added, key=len, reverse=True)
        self._whole = re.compile(f"({'|'.join(map(re.escape, longest_first))})")
        return created

    @property
    def all_special_tokens(self) -> list[str]:
        """Begin, end, unknown, padding and further special tokens, each once."""
        return list(dict.fromkeys([*(getattr(self, role) for role in SPECIAL_ROLES), *self._extra_special]))

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `all_special_tokens`."""
        return [self._id(token) for token in self.all_special_tokens]

    @property
    def special_tokens_map(self) -> dict[str, str]:
        """Role → token."""
        return {role: getattr(self, role) for role in SPECIAL_ROLES}

    @property
    def bos_token_id(self) -> int:
        """The id of the begin token: 255 in the published model."""
        return self._id(self.bos_token)

    @property
    def eos_token_id(self) -> int:
        """The id of the end token: 0 in the published model."""
        return self._id(self.eos_token)

    @property
    def pad_token_id(self) -> int:
        """The id of the padding token: 0 in the published model."""
        return self._id(self.pad_token)

    @property
    def unk_token_id(self) -> int:
        """The id of the unknown token: 1 in the published model."""
        return self._id(self.unk_token)

    def _id(self, token: str) -> int:
        if token in self._added:
            return self._added[token]
        return self.encoder.get(token, self._added[self.unk_token])

    def convert_tokens_to_ids(self, tokens: Any) -> Any:
        """The id of a token, or the ids of a list of tokens; [UNK]'s for one that is unknown."""
        if tokens is None:
            return None
        return self._id(tokens) if isinstance(tokens, str) else [self._id(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """The token of an id, or the tokens of a list of ids; TextError for an id that is none."""
        names = {**self.decoder, **{index: token for token, index in self._added.items()}}
        special = set(self.all_special_ids) if skip_special_tokens else set()
        single = isinstance(ids, int)
        rows = [ids] if single else saving.plain_ids(ids)
        for index in rows:
            if index not in names:
                raise TextError(f"{index} is not an id of this vocabulary, which has {len(self)} entries")
        tokens = [names[index] for index in rows if single or index not in special]
        return tokens[0] if single else tokens
