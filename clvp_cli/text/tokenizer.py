"""The tokenizer: text → ids → text, with the published names of transformers' ClvpTokenizer.

Owns the special tokens and the order of steps: split off special tokens, normalise the rest, split it into pieces,
look the pieces up. Knows nothing of audio or models; loads the `tokenizers` library with the first text, never torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from clvp_cli.documents import short
from clvp_cli.errors import TextError, UsageError
from clvp_cli.locate import model_path
from clvp_cli.text import bpe, saving
from clvp_cli.text.batching import UNLIMITED
from clvp_cli.text.normalizers import get_normalizer
from clvp_cli.text.tokens import SPECIAL_ROLES, TokenTable
from clvp_cli.text.vocabulary import Vocabulary, embedded_vocabulary, read_vocabulary

if TYPE_CHECKING:
    import numpy as np

SCHEMES = ("hf", "tortoise")
TEXT_LIMIT = 401  # ids of one text: the decoder's 404 text positions less begin, end and the extra stop


class ClvpTokenizer(TokenTable):
    """transformers' slow ClvpTokenizer under the same names, with the normaliser and the splitting scheme to choose.

    Args:
        vocab_file, merges_file: paths; both None for the embedded tables of the published model.
        errors: how `decode` treats bytes that are no UTF-8, as in bytes.decode.
        unk_token, bos_token, eos_token, pad_token: special tokens; one that the vocabulary lacks is added at its end.
        add_prefix_space: put a blank before a text that has none.
        add_bos_token, add_eos_token: what `build_inputs_with_special_tokens` adds.
        normalizer: "english", "hf", "tortoise", or None to take texts as they are.
        scheme: "hf" or "tortoise": how normalised text is cut into pieces. Special tokens written in a text
            ("[STOP]") are kept whole under "hf", lowered and spelled under "tortoise", as in the originals.
        kwargs: model_max_length, padding_side, truncation_side, clean_up_tokenization_spaces,
            added_tokens_decoder; others, from a saved tokenizer_config.json, have no effect.

    Raises:
        InputError: a vocabulary file that cannot be read.
        UsageError: a normaliser or scheme of no known name.
    """

    def __init__(
        self,
        vocab_file: str | Path | None = None,
        merges_file: str | Path | None = None,
        errors: str = "replace",
        unk_token: Any = "[UNK]",
        bos_token: Any = "<|endoftext|>",
        eos_token: Any = "[STOP]",
        pad_token: Any = "[STOP]",
        add_prefix_space: bool = False,
        add_bos_token: bool = False,
        add_eos_token: bool = False,
        *,
        normalizer: str | None = "english",
        scheme: str = "hf",
        vocabulary: Vocabulary | None = None,
        **kwargs: Any,
    ) -> None:
        if scheme not in SCHEMES:
            raise UsageError(f"no tokenizer scheme is called {short(scheme)}", f"choose one of: {', '.join(SCHEMES)}")
        if (vocab_file is None) != (merges_file is None):
            raise UsageError("a vocabulary is two files", hint="pass both vocab_file and merges_file, or neither")
        if vocabulary is None and vocab_file is not None and merges_file is not None:
            vocabulary = read_vocabulary(Path(vocab_file), Path(merges_file))
        self.vocabulary = vocabulary or embedded_vocabulary()
        self.encoder = self.vocabulary.ids
        self.decoder = {index: token for token, index in self.encoder.items()}
        self.errors = errors
        self.bos_token, self.eos_token = saving.token_text(bos_token), saving.token_text(eos_token)
        self.unk_token, self.pad_token = saving.token_text(unk_token), saving.token_text(pad_token)
        self.add_prefix_space, self.add_bos_token, self.add_eos_token = add_prefix_space, add_bos_token, add_eos_token
        self.normalizer_name, self.scheme = normalizer, scheme
        self._normalizer = get_normalizer(normalizer) if normalizer is not None else str
        self.model_max_length = int(kwargs.get("model_max_length") or UNLIMITED)
        self.padding_side = kwargs.get("padding_side", "right")
        self.truncation_side = kwargs.get("truncation_side", "right")
        self.clean_up_tokenization_spaces = bool(kwargs.get("clean_up_tokenization_spaces", True))
        self._added = saving.added_tokens(kwargs.get("added_tokens_decoder") or {})
        self._extra_special = []
        self.add_tokens([getattr(self, role) for role in SPECIAL_ROLES], special_tokens=True)

    @cached_property
    def _engine(self) -> bpe.Engine:
        if self.scheme == "tortoise":
            return bpe.tortoise_engine(self.vocabulary, self.unk_token)
        return bpe.published_engine(self.vocabulary)

    def _chunks(self, text: str, split_special_tokens: bool) -> Iterable[tuple[str, bool]]:
        """The text as (chunk, is a special token); every other chunk is normalised by itself, as in the original."""
        if not isinstance(text, str):
            raise TextError(f"the text is a {type(text).__name__}, not a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:  # an argument that is not UTF-8; a normaliser would drop it silently
            raise TextError("the text holds a lone surrogate, which is no character", "give it as UTF-8") from error
        if self.scheme == "tortoise" or split_special_tokens:
            return [(self._normalizer(text), False)]
        chunks = [(chunk, place % 2 == 1) for place, chunk in enumerate(self._whole.split(text))]
        return [(chunk if special else self._normalizer(chunk), special) for chunk, special in chunks if chunk]

    def normalize(self, text: str) -> str:
        """The text as it is cut into pieces: normalised, but for special tokens written in it."""
        return "".join(chunk for chunk, _ in self._chunks(text, split_special_tokens=False))

    def tokenize(self, text: str, **kwargs: Any) -> list[str]:
        """The tokens of a text; a piece that the vocabulary lacks stands as it is and has the id of [UNK].

        Options: add_prefix_space, split_special_tokens (spell special tokens instead of keeping them whole).

        Raises:
            TextError: not a string, not encodable, or a number that the `hf` or `tortoise` normaliser cannot read.
        """
        if kwargs.get("add_prefix_space", self.add_prefix_space) and isinstance(text, str) and not text[:1].isspace():
            text = f" {text}"
        tokens: list[str] = []
        for chunk, special in self._chunks(text, kwargs.get("split_special_tokens", False)):
            tokens += [chunk] if special else self._engine(chunk)
        return tokens

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """Begin and end around each sequence, where add_bos_token and add_eos_token say so."""
        begin = [self.bos_token_id] if self.add_bos_token else []
        end = [self.eos_token_id] if self.add_eos_token else []
        second = [] if token_ids_1 is None else [*begin, *token_ids_1, *end]
        return [*begin, *token_ids_0, *end, *second]

    def get_special_tokens_mask(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None, already_has_special_tokens: bool = False
    ) -> list[int]:
        """1 where `build_inputs_with_special_tokens` adds a token, or where a special id already stands."""
        if already_has_special_tokens:
            special = set(self.all_special_ids)
            return [int(index in special) for index in token_ids_0]
        begin, end = [1] * self.add_bos_token, [1] * self.add_eos_token
        second = [] if token_ids_1 is None else [*begin, *[0] * len(token_ids_1), *end]
        return [*begin, *[0] * len(token_ids_0), *end, *second]

    def encode_for_speech(self, text: str, limit: int = TEXT_LIMIT) -> np.ndarray:
        """The ids of a text to be spoken, (S,) int64, without begin or end.

        Raises:
            TextError: nothing is left after normalisation, nothing in it can be spelled, or more than ``limit`` ids.
        """
        import numpy as np

        if not self.normalize(text).strip():
            raise TextError("the text is empty once normalised", hint="give some letters or figures to speak")
        ids = np.asarray(self.encode(text, add_special_tokens=False), dtype=np.int64)
        unspoken = [self._id(token) for token in (self.unk_token, bpe.SPACE)]
        if np.isin(ids, unspoken).all():
            raise TextError("no character of the text is in the vocabulary", hint="write it in English letters")
        if len(ids) > limit:
            raise TextError(
                f"the text has {len(ids)} ids, but the model reads at most {limit}",
                hint="split the text, or read it sentence by sentence",
            )
        return ids

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        """The tokens run together, bytes turned back into characters."""
        if self.scheme == "tortoise":
            return "".join(tokens)
        return bpe.join_bytes("".join(tokens), self.errors)

    def decode(
        self,
        token_ids: Any,
        skip_special_tokens: bool = False,
        clean_up_tokenization_spaces: bool | None = None,
        **kwargs: Any,
    ) -> str:
        """The text of some ids: one id, a list, an array or a tensor (S,)."""
        ids = [token_ids] if isinstance(token_ids, int) else saving.plain_ids(token_ids)
        text = self.convert_tokens_to_string(self.convert_ids_to_tokens(ids, skip_special_tokens))
        wanted = (
            self.clean_up_tokenization_spaces if clean_up_tokenization_spaces is None else clean_up_tokenization_spaces
        )
        return self.clean_up_tokenization(text) if wanted else text

    def batch_decode(self, sequences: Iterable[Any], skip_special_tokens: bool = False, **kwargs: Any) -> list[str]:
        """`decode` for each row."""
        return [self.decode(row, skip_special_tokens, **kwargs) for row in sequences]

    def clean_up_tokenization(self, text: Any) -> str:
        """[SPACE] and [STOP] become a blank, [UNK] goes, runs of blanks become one.

        Under Tortoise's scheme, as in the original, [STOP] goes too and every blank stays.
        """
        joined = "".join(map(str, text)).replace(bpe.SPACE, " ").replace(self.unk_token, "")
        if self.scheme == "tortoise":
            return joined.replace("[STOP]", "")
        return re.sub(" {2,}", " ", joined.replace("[STOP]", " "))

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, str]:
        """Write vocab.json and merges.txt as transformers does; returns their paths."""
        return saving.write_vocabulary(self.vocabulary, Path(save_directory), filename_prefix)

    def save_pretrained(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Write the vocabulary and a tokenizer_config.json that transformers reads too; returns the paths."""
        return saving.write_all(self, Path(save_directory), filename_prefix)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """The tokenizer of a directory, "mini" or a hub id in the local cache, or of a Tortoise tokenizer.json.

        ``kwargs`` go before what tokenizer_config.json says.
        """
        vocabulary, settings = saving.read_directory(model_path(pretrained_model_name_or_path, "vocab.json"))
        return cls(vocabulary=vocabulary, **{**settings, **kwargs})


def load_tokenizer(directory: Path | None, *, normalizer: str | None = "english", scheme: str = "hf") -> ClvpTokenizer:
    """The tokenizer of a model directory; the embedded one for None or for a directory without any vocabulary file."""
    if directory is None or not saving.has_vocabulary(directory):
        return ClvpTokenizer(normalizer=normalizer, scheme=scheme)
    return ClvpTokenizer.from_pretrained(directory, normalizer=normalizer, scheme=scheme)
