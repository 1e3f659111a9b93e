"""GenerationConfig: the published generation settings that act here, as a file and as keyword arguments.

Owns their names and defaults, and what they mean as this project's SamplingSettings. Torch-free.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ..documents import read_json, short
from ..errors import ConfigError, OutputError
from ..locate import model_file
from ..settings import SamplingSettings, check, field_types, nearest

GENERATION_CONFIG_NAME = "generation_config.json"
DEFAULT_CODES = 256  # max_new_tokens of the published generation_config.json

# Settings of transformers' class that act on nothing here: taken at these values, refused at any other.
INERT: dict[str, Any] = {
    "early_stopping": False,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "encoder_repetition_penalty": 1.0,
    "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0,
    "epsilon_cutoff": 0.0,
    "eta_cutoff": 0.0,
    "renormalize_logits": False,
    "remove_invalid_values": False,
    "token_healing": False,
    "output_scores": False,
}
NEVER_SET = (
    *("max_time", "stop_strings", "penalty_alpha", "dola_layers", "cache_implementation", "cache_config", "min_p"),
    *("bad_words_ids", "force_words_ids", "constraints", "forced_bos_token_id", "forced_eos_token_id", "low_memory"),
    *("exponential_decay_length_penalty", "suppress_tokens", "begin_suppress_tokens", "forced_decoder_ids"),
    *("sequence_bias", "guidance_scale", "watermarking_config", "decoder_start_token_id", "return_legacy_cache"),
    *("prompt_lookup_num_tokens", "max_matching_ngram_size"),
)
INERT.update(dict.fromkeys(NEVER_SET))
FREE = (  # without effect at any value
    *("transformers_version", "_from_model_config", "_commit_hash", "use_cache", "is_assistant"),
    *("num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold", "generation_kwargs"),
)
WHOLE = (
    *("max_new_tokens", "max_length", "min_new_tokens", "min_length", "num_beams", "num_return_sequences"),
    *("seed", "batch_size", "pad_token_id"),
)


@dataclass(init=False)
class GenerationConfig:
    """How `generate` draws codes. Defaults are transformers', but for the length.

    Where neither max_new_tokens nor max_length is given, 256 codes are drawn at most, as the published
    generation_config.json has it (transformers alone would take 20, the prompt included). Unlike there,
    code_positions is "trained": "skip" reproduces the positions 0, 2, 3, … of the published cached generation.
    """

    max_new_tokens: int | None = None  # codes at most, the stop code included
    max_length: int | None = None  # counted as published: prefix, start code, and the codes with a start code again
    min_new_tokens: int | None = None  # no stop code before so many
    min_length: int = 0  # counted as max_length
    do_sample: bool = False  # False: the most probable code each time
    num_beams: int = 1  # above 1: beam search, which is deterministic here; do_sample has no part in it
    num_return_sequences: int = 1
    temperature: float = 1.0
    top_k: int | None = 50  # 0 or None: off
    top_p: float | None = 1.0
    typical_p: float | None = 1.0
    repetition_penalty: float = 1.0
    length_penalty: float = 1.0  # beam search: sum of log p / length ** penalty
    return_dict_in_generate: bool = False
    output_hidden_states: bool = False
    output_attentions: bool = False
    output_logits: bool | None = None
    pad_token_id: int | None = None  # fills up short rows of `sequences`; None: the stop code
    bos_token_id: int | None = None  # None: the decoder's
    eos_token_id: int | None = None
    code_positions: Literal["trained", "skip"] = "trained"
    suppress_start: bool = True  # never draw the start code. The published code may, and then cannot score it
    pad: int | Literal["own", "batch"] = "own"  # codes that a candidate is padded to for its score
    seed: int | None = None  # row i of a prompt depends on (seed, i) alone; None: drawn from torch's generator
    batch_size: int = 0  # rows at once, 0 by memory; changes no result

    def __init__(self, /, **kwargs: Any) -> None:
        for each in dataclasses.fields(self):
            setattr(self, each.name, each.default)
        self._set(kwargs)

    def _set(self, values: dict[str, Any]) -> None:
        """Set what is given and check it; raises ConfigError for a setting that is unknown or not offered."""
        known = [each.name for each in dataclasses.fields(self)]
        for name, value in values.items():
            if name in known:
                setattr(self, name, value)
            elif name in INERT:
                if value != INERT[name]:
                    raise ConfigError(f"generation setting {name}={short(value)} is not offered here", "leave it out")
            elif name not in FREE:
                raise ConfigError(f"unknown generation setting {short(name)}", nearest(name, known))
        for name in WHOLE:
            value = getattr(self, name)
            needed = getattr(type(self), name) is not None
            if (value is not None or needed) and (not isinstance(value, int) or isinstance(value, bool)):
                raise ConfigError(f"generation setting {name} is {short(value)}", "a whole number is expected")
        if self.code_positions not in ("trained", "skip"):
            raise ConfigError(f"code_positions is {short(self.code_positions)}", 'use "trained" or "skip"')
        whole = isinstance(self.pad, int) and not isinstance(self.pad, bool) and self.pad > 0
        if self.pad not in ("own", "batch") and not whole:
            raise ConfigError(f"pad is {short(self.pad)}", 'use "own", "batch" or a number of codes')
        self._check_rows()

    def _check_rows(self) -> None:
        if self.num_beams > 1 and self.num_return_sequences > self.num_beams:
            raise ConfigError(
                f"num_return_sequences {self.num_return_sequences} is above num_beams {self.num_beams}",
                "a beam ends with at most num_beams sequences",
            )
        if self.num_return_sequences > 1 and self.num_beams == 1 and not self.do_sample:
            raise ConfigError(
                f"num_return_sequences {self.num_return_sequences} without sampling: they would all be the same",
                "set do_sample=True or num_beams",
            )

    def merged(self, kwargs: dict[str, Any]) -> Self:
        """A copy with the keyword arguments on top; those that are None where None means nothing were not given."""
        optional = {each.name for each in dataclasses.fields(self) if each.default is None} | {"top_k", "top_p"}
        given = {name: value for name, value in kwargs.items() if value is not None or name in optional}
        values = self.to_dict()
        if given.keys() & {"max_length"} and "max_new_tokens" not in given:
            values["max_new_tokens"] = None  # a length asked for in this call goes before the file's
        return type(self)(**{**values, **given})

    def update(self, **kwargs: Any) -> dict[str, Any]:
        """Set these in place; returns {}, as the published method does when it knew them all."""
        self._set(kwargs)
        return {}

    def sampling(self, prefix: int) -> SamplingSettings:
        """These settings for a prompt of `prefix` positions, start code not counted. ConfigError: out of range."""
        most, least = self.max_new_tokens, self.min_new_tokens or 0
        counted = prefix + 2  # what max_length and min_length count beside the codes
        if most is None:
            most = DEFAULT_CODES if self.max_length is None else self.max_length - counted
        if most < 1:
            if self.max_new_tokens is not None:
                raise ConfigError(f"max_new_tokens is {most}", "one code at least is drawn")
            raise ConfigError(
                f"max_length {self.max_length} leaves no room after a prompt of {prefix + 1} positions",
                "use max_new_tokens, which counts codes alone",
            )
        values = {
            "n": self.num_return_sequences,
            "temperature": self.temperature,
            "top_p": 1.0 if self.top_p is None else self.top_p,
            "top_k": self.top_k or 0,
            "typical_p": 1.0 if self.typical_p is None else self.typical_p,
            "repetition_penalty": self.repetition_penalty,
            "min_codes": max(least, self.min_length - counted, 0),
            "max_codes": most,
            "beams": self.num_beams,
            "length_penalty": self.length_penalty,
        }
        kinds = field_types()
        checked = {
            name: check(f"sampling.{name}", value, kinds[f"sampling.{name}"], "generation settings")
            for name, value in values.items()
        }
        return SamplingSettings(
            **checked,
            penalty_history="start",  # as published; the start code is not drawn anyway unless asked for
            greedy=not self.do_sample,
            code_positions=self.code_positions,
            suppress_start=self.suppress_start,
        )

    def to_dict(self) -> dict[str, Any]:
        """Every setting."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write generation_config.json: what differs from the defaults."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        path = Path(save_directory) / GENERATION_CONFIG_NAME
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    @classmethod
    def from_pretrained(cls, pretrained_model_name: str | Path, **kwargs: Any) -> Self:
        """Read generation_config.json: of a directory, "mini" or a hub id in the local cache; kwargs go first."""
        return cls(**{**read_json(model_file(pretrained_model_name, GENERATION_CONFIG_NAME)), **kwargs})
