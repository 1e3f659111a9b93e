"""ClvpDecoder, ClvpModel and ClvpForCausalLM: the code decoder with the published forward, cache and generate.

B batch, S positions fed, P positions in the cache, D width, V codes, H heads.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ClvpConfig, ClvpDecoderConfig
from ..errors import InputError, UsageError
from ..model.decoder import CodeDecoder, DecoderBody, DecoderStack
from ..model.layers import Trace
from .attending import CachedAttend, decoder_mask, layer_head_masks
from .generating import generate_rows
from .generation_config import GenerationConfig
from .outputs import (
    BaseModelOutputWithPastAndCrossAttentions,
    CausalLMOutputWithCrossAttentions,
    GenerateDecoderOnlyOutput,
    Past,
)
from .pretrained import ClvpPreTrainedModel, Place, choice
from .replay import collect


class ClvpDecoder(ClvpPreTrainedModel, DecoderStack):
    """Embeddings, layers and `layer_norm`: codes → hidden states."""

    config_class = ClvpDecoderConfig

    @classmethod
    def _place(cls, config: ClvpConfig) -> Place:
        return Place(config.decoder_config, "speech_decoder_model.model.decoder.")

    def get_input_embeddings(self) -> nn.Module:
        """The code embedding."""
        return self.input_embeds_layer

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the code embedding."""
        self.input_embeds_layer = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        past_key_values: Past | None = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """Codes (B, S) or embeddings (B, S, D) → hidden states (B, S, D).

        Args:
            attention_mask: (B, P + S) of 0 and 1, the cached positions included.
            token_type_ids: (B, S), looked up in the code embedding and added, as published.
            position_ids: (B or 1, S); P, P + 1, … where not given. Added to inputs_embeds too, as published.
            head_mask: (H,) or (layers, H), 0 for a head to silence.
            past_key_values: keys and values (B, H, P, d) of each layer, as returned.
            use_cache: return past_key_values; the configuration's choice where None.

        Raises:
            InputError (a ValueError): both input_ids and inputs_embeds, or neither; masks of wrong size; positions
                beyond the table.
        """
        embeds = self._embeds(input_ids, inputs_embeds)
        past = past_key_values[0][0].shape[-2] if past_key_values else 0
        if position_ids is None:
            position_ids = torch.arange(past, past + embeds.shape[1], device=embeds.device).unsqueeze(0)
        if int(position_ids.max()) >= self.position_embeds_layer.num_embeddings:
            known = self.position_embeds_layer.num_embeddings
            raise InputError(f"position {int(position_ids.max())}: the position table holds {known}")
        embeds = embeds + self.position_embeds_layer(position_ids)
        if token_type_ids is not None:
            embeds = embeds + self.input_embeds_layer(token_type_ids.view(-1, embeds.shape[1]))
        trace = Trace.wanted(
            hidden_states=choice(self.config, "output_hidden_states", output_hidden_states, False),
            attentions=choice(self.config, "output_attentions", output_attentions, False),
        )
        attend = CachedAttend(
            past_key_values or None,
            layer_head_masks(head_mask, len(self.layers)),
            decoder_mask(attention_mask, embeds, past),
            self.config.attention_dropout if self.training else 0.0,
            trace,
        )
        output = BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.hidden(embeds, attend, trace),
            past_key_values=tuple(attend.presents) if choice(self.config, "use_cache", use_cache, True) else None,
            hidden_states=None if trace.hidden_states is None else tuple(trace.hidden_states),
            attentions=None if trace.attentions is None else tuple(trace.attentions),
        )
        return output if choice(self.config, "return_dict", return_dict, True) else output.to_tuple()

    def _embeds(self, input_ids: Tensor | None, inputs_embeds: Tensor | None) -> Tensor:
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("exactly one of input_ids and inputs_embeds is needed")
        if inputs_embeds is not None:
            return inputs_embeds
        assert input_ids is not None
        out: Tensor = self.input_embeds_layer(input_ids.view(-1, input_ids.shape[-1]))
        return out


class ClvpModel(ClvpPreTrainedModel, DecoderBody):
    """The bare decoder under the name `decoder`; forward is that of `ClvpDecoder`."""

    config_class = ClvpDecoderConfig
    stack_class = ClvpDecoder
    decoder: ClvpDecoder

    @classmethod
    def _place(cls, config: ClvpConfig) -> Place:
        return Place(config.decoder_config, "speech_decoder_model.model.")

    def get_input_embeddings(self) -> nn.Module:
        """The code embedding."""
        return self.decoder.input_embeds_layer

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the code embedding."""
        self.decoder.set_input_embeddings(value)

    def get_decoder(self) -> ClvpDecoder:
        """The decoder."""
        return self.decoder

    def forward(self, *args: Any, **kwargs: Any) -> BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...]:
        """As `ClvpDecoder.forward`."""
        out: BaseModelOutputWithPastAndCrossAttentions | tuple[Any, ...] = self.decoder(*args, **kwargs)
        return out


class ClvpForCausalLM(ClvpPreTrainedModel, CodeDecoder):
    """The decoder with its language-modelling head."""

    config_class = ClvpDecoderConfig
    body_class = ClvpModel
    generation_config: GenerationConfig
    model: ClvpModel

    @classmethod
    def _place(cls, config: ClvpConfig) -> Place:
        return Place(config.decoder_config, "speech_decoder_model.")

    def get_input_embeddings(self) -> nn.Module:
        """The code embedding."""
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the code embedding."""
        self.model.set_input_embeddings(value)

    def forward(
        self,
        input_ids: Tensor | None = None,
        past_key_values: Past | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        head_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> CausalLMOutputWithCrossAttentions | tuple[Any, ...]:
        """As `ClvpDecoder.forward`, with logits (B, S, V).

        labels (B, S) are shifted here (labels = input_ids is the usual call); −100 is left out of the loss.
        """
        body = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            head_mask=head_mask,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.logits(body.last_hidden_state)
        loss = None
        if labels is not None:
            loss = F.cross_entropy(logits[..., :-1, :].flatten(0, -2), labels[..., 1:].to(logits.device).flatten())
        output = CausalLMOutputWithCrossAttentions(
            loss=loss,
            logits=logits,
            past_key_values=body.past_key_values,
            hidden_states=body.hidden_states,
            attentions=body.attentions,
        )
        return output if choice(self.config, "return_dict", return_dict, True) else output.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        conditioning_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor | GenerateDecoderOnlyOutput:
        """Prefixes (B, P, D) of the conditioning encoder → code sequences (B · num_return_sequences, 1 + codes).

        Args:
            inputs: the start code alone (B, 1), as published; without conditioning_embeds, speech out of nothing.
            generation_config, kwargs: see `GenerationConfig`; kwargs go first, unknown ones are an error.
            attention_mask: (B, P), 0 for prefix positions to leave out. (The published code ignores it.)

        The codes stand at the trained positions 0, 1, 2, …; the published code skips position 1, which
        code_positions="skip" reproduces. Every row is what it is alone.

        Raises:
            UsageError: inputs other than the start code.
            ConfigError: a setting that is unknown, out of range, or not offered.
        """
        options = (generation_config or self.generation_config).merged(kwargs)
        if inputs is not None and not (inputs.shape[-1] == 1 and bool((inputs == self.config.bos_token_id).all())):
            raise UsageError(
                "generate continues a prefix, not codes", "pass conditioning_embeds, or continue with forward()"
            )
        if conditioning_embeds is None:
            weight = self.lm_head.weight
            rows = 1 if inputs is None else len(inputs)
            conditioning_embeds = torch.zeros(
                rows, 0, self.config.hidden_size, dtype=weight.dtype, device=weight.device
            )
        prefixes = list(conditioning_embeds)
        if attention_mask is not None:
            prefixes = [row[kept.to(torch.bool)] for row, kept in zip(prefixes, attention_mask, strict=True)]
        output = collect(self, prefixes, generate_rows(self, prefixes, options), options)
        assert output.sequences is not None
        return output if options.return_dict_in_generate else output.sequences

    @staticmethod
    def _reorder_cache(past_key_values: Past, beam_idx: Tensor) -> Past:
        """The cache with its rows in the order of `beam_idx` (B,)."""
        return tuple(
            (k.index_select(0, beam_idx.to(k.device)), v.index_select(0, beam_idx.to(v.device)))
            for k, v in past_key_values
        )
