"""ClvpEncoder: the text or the speech encoder with the published forward."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from ..config import ClvpConfig, ClvpEncoderConfig
from ..errors import InputError
from ..model.encoder import Encoder
from ..model.layers import Trace
from .outputs import ClvpEncoderOutput
from .pretrained import ClvpPreTrainedModel, Place, choice


class ClvpEncoder(ClvpPreTrainedModel, Encoder):
    """Transformer encoder: ids → one vector.

    Args:
        config: sizes; `summary_type` is mean, last, first or cls_index.

    Unlike the published class, positions that the attention mask leaves out do not count in the summary either: a
    row padded on the right has the embedding it has alone. (The published
    one averages over pads, and "last" takes one.)
    """

    config_class = ClvpEncoderConfig

    @classmethod
    def _place(cls, config: ClvpConfig, config_type: str = "text_config") -> Place:
        if config_type not in ("text_config", "speech_config"):
            raise InputError(f"config_type {config_type!r}", "text_config or speech_config is expected")
        return Place(getattr(config, config_type), f"{config_type.removesuffix('_config')}_encoder_model.")

    def get_input_embeddings(self) -> nn.Module:
        """The token embedding."""
        return self.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding."""
        self.token_embedding = value  # type: ignore[assignment]

    def forward(
        self,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ClvpEncoderOutput | tuple[Any, ...]:
        """Ids (B, S) or their embeddings (B, S, D), mask (B, S) of 0 and 1 → `ClvpEncoderOutput`.

        Without a mask every position counts, pads too. return_dict=False gives the tuple of the fields that are there.

        Raises:
            InputError (a ValueError): both input_ids and inputs_embeds, or neither.
        """
        embeds = inputs_embeds
        if (input_ids is None) == (inputs_embeds is None):
            raise InputError("exactly one of input_ids and inputs_embeds is needed")
        if input_ids is not None:
            embeds = self.token_embedding(input_ids.view(-1, input_ids.shape[-1]))
        assert embeds is not None
        trace = Trace.wanted(
            hidden_states=choice(self.config, "output_hidden_states", output_hidden_states, False),
            attentions=choice(self.config, "output_attentions", output_attentions, False),
        )
        hidden = self.hidden(embeds, attention_mask, position_ids, trace)
        pooled = self.summarise(hidden, attention_mask)
        output = ClvpEncoderOutput(
            embeds=self.projection(pooled),
            last_hidden_state=hidden,
            pooler_output=pooled,
            hidden_states=None if trace.hidden_states is None else tuple(trace.hidden_states),
            attentions=None if trace.attentions is None else tuple(trace.attentions),
        )
        return output if choice(self.config, "return_dict", return_dict, True) else output.to_tuple()
