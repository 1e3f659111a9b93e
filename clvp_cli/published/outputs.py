"""What the published classes return: fields by attribute, by key and by index, those that are None left out.

Owns the published field names and their order. Tensors only as values; knows nothing of models.
B batch, S positions, D width, E projection width, V codes, H heads.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, NoReturn

from torch import Tensor

Layers = tuple[Tensor, ...]  # one tensor a layer
Past = tuple[tuple[Tensor, Tensor], ...]  # keys and values (B, H, S, d) of each layer


class ModelOutput(dict[str, Any]):
    """A dataclass that is also a dict of its fields and, by number or slice, a tuple of them.

    As in the published class, fields that are None have neither key nor number, and iterating gives keys.
    """

    def __post_init__(self) -> None:
        self._fill()

    def _fill(self) -> None:
        dict.clear(self)
        for each in fields(self):  # type: ignore[arg-type]  # every subclass is a dataclass
            value = self.__dict__.get(each.name)
            if value is not None:
                dict.__setitem__(self, each.name, value)

    def __getitem__(self, key: Any) -> Any:
        return dict.__getitem__(self, key) if isinstance(key, str) else self.to_tuple()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        if len(self.__dict__) == len(fields(self)):  # type: ignore[arg-type]  # not while __init__ still sets them
            self._fill()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), tuple(getattr(self, each.name) for each in fields(self))  # type: ignore[arg-type]

    def to_tuple(self) -> tuple[Any, ...]:
        """The fields that are not None, in order."""
        return tuple(self.values())

    def _fixed(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError(f"the fields of a {type(self).__name__} are fixed: set one by attribute or key")

    __delitem__ = pop = popitem = setdefault = update = clear = _fixed


@dataclass(eq=False)
class ClvpEncoderOutput(ModelOutput):
    """embeds (B, E), last_hidden_state (B, S, D), pooler_output (B, D); hidden_states and attentions on request."""

    embeds: Tensor | None = None
    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None


@dataclass(eq=False)
class ClvpOutput(ModelOutput):
    """What the whole model returns, T texts against N speech candidates.

    loss (): on request. speech_ids (N, codes): `generate` alone. logits_per_speech (N, T), logits_per_text (T, N):
    cosine · exp(logit_scale). text_embeds (T, E), speech_embeds (N, E): of length one. text_model_output,
    speech_model_output: the pooled hidden states (T, D), (N, D), as the published code has it. The hidden states on
    request; `generate` gives those of the decoder as one tuple a code of one tensor a layer.
    """

    loss: Tensor | None = None
    speech_ids: Tensor | None = None
    logits_per_speech: Tensor | None = None
    logits_per_text: Tensor | None = None
    text_embeds: Tensor | None = None
    speech_embeds: Tensor | None = None
    text_model_output: Tensor | None = None
    speech_model_output: Tensor | None = None
    decoder_hidden_states: tuple[Any, ...] | None = None
    text_encoder_hidden_states: Layers | None = None
    speech_encoder_hidden_states: Layers | None = None


@dataclass(eq=False)
class BaseModelOutputWithPastAndCrossAttentions(ModelOutput):
    """last_hidden_state (B, S, D), past_key_values; hidden_states and attentions on request. No cross attentions."""

    last_hidden_state: Tensor | None = None
    past_key_values: Past | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    cross_attentions: Layers | None = None


@dataclass(eq=False)
class CausalLMOutputWithCrossAttentions(ModelOutput):
    """loss () with labels, logits (B, S, V), past_key_values; hidden_states and attentions on request."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: Past | None = None
    hidden_states: Layers | None = None
    attentions: Layers | None = None
    cross_attentions: Layers | None = None


@dataclass(eq=False)
class GenerateDecoderOnlyOutput(ModelOutput):
    """What `ClvpForCausalLM.generate` returns with return_dict_in_generate.

    sequences (N, 1 + codes) with the start code, short rows filled up with the pad id; sequences_scores (N,) of beam
    search; logits, attentions and hidden_states on request, one entry a code. stopped (N,) tells which rows ended with
    the stop code and is not in the published class.
    """

    sequences: Tensor | None = None
    sequences_scores: Tensor | None = None
    logits: Layers | None = None
    attentions: tuple[Layers, ...] | None = None
    hidden_states: tuple[Layers, ...] | None = None
    stopped: Tensor | None = None
