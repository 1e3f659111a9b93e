"""ClvpModelForConditionalGeneration: text and voice to scored speech candidates, with the published interface.

T texts, N speech candidates, S text ids, P prefix positions, D width, E projection width.
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..config import ClvpConfig
from ..errors import InputError, TextError
from ..model.clvp import ClvpNetwork, contrastive_loss, unit
from ..model.conditioning import insert_stop
from .conditioning import ClvpConditioningEncoder
from .decoder import ClvpForCausalLM
from .encoder import ClvpEncoder
from .generating import generate_rows
from .generation_config import GenerationConfig
from .outputs import ClvpEncoderOutput, ClvpOutput, GenerateDecoderOnlyOutput
from .pretrained import ClvpPreTrainedModel, choice
from .replay import collect
from .rows import fixed, left_aligned, prompt_speech, scored_ids

log = logging.getLogger("clvp")


class ClvpModelForConditionalGeneration(ClvpPreTrainedModel, ClvpNetwork):
    """The whole model: conditioning encoder, decoder, text and speech encoder.

    Where it differs from the published class, unless it is told not to:

    * `generate` puts the codes at the trained positions; code_positions="skip" reproduces the published ones.
    * Rows do not depend on their neighbours: prompts lose their padding, and each candidate is scored at its own
      length (pad="batch" pads to the longest of the batch as published, pad_to_max_mel_tokens to a fixed length).
    * `generate` returns its tuple without return_dict_in_generate, and `get_speech_features` generates, where the
      published ones fail; neither changes the model's generation_config.
    * The start code, which the speech encoder cannot read, is never drawn unless suppress_start=False.
    * conditioning_encoder_inputs_embeds and candidates shorter than three codes work.
    """

    config_class = ClvpConfig
    conditioning_class = ClvpConditioningEncoder
    decoder_class = ClvpForCausalLM
    encoder_class = ClvpEncoder
    config: ClvpConfig
    conditioning_encoder: ClvpConditioningEncoder
    speech_decoder_model: ClvpForCausalLM
    text_encoder_model: ClvpEncoder
    speech_encoder_model: ClvpEncoder

    def get_input_embeddings(self) -> nn.Module:
        """The text encoder's token embedding."""
        return self.text_encoder_model.token_embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the text encoder's token embedding."""
        self.text_encoder_model.set_input_embeddings(value)

    def fix_speech_decoder_output(self, speech_ids: Tensor) -> Tensor:
        """Decoder output (N, 1 + codes) → what the speech encoder reads (N, codes): the start column dropped, silence
        from the first stop on and 45 45 248 at the end. A row without a stop stays as it is."""
        return fixed(speech_ids[:, 1:], self.config.decoder_config)

    def get_text_features(
        self,
        input_ids: Tensor | None = None,
        text_encoder_inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
    ) -> Tensor:
        """Ids (T, S), or their embeddings (T, S, D) → text embeddings (T, E), not of unit length.

        The ids are taken as they are: unlike `generate`, this adds no closing 0, as published.
        """
        if input_ids is not None:
            input_ids, attention_mask = left_aligned(input_ids, attention_mask)
        encoded: ClvpEncoderOutput = self.text_encoder_model(
            input_ids=input_ids,
            inputs_embeds=text_encoder_inputs_embeds,
            attention_mask=attention_mask,
            return_dict=True,
        )
        assert encoded.embeds is not None
        return encoded.embeds

    def get_speech_features(
        self,
        speech_ids: Tensor | None = None,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        conditioning_encoder_inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Speech embeddings (N, E), not of unit length, of codes that are given or generated first.

        Args:
            speech_ids: (N, codes), fixed already; attention_mask (N, codes) then tells which of them count.
            input_ids, conditioning_encoder_inputs_embeds, input_features: text and voice to generate from, where no
                speech_ids are given; attention_mask (T, S) is then the text's. As published, no extra 0 is added to
                the text here, so candidates differ from those of `generate`.
            generation_config, kwargs: see `GenerationConfig`.

        Raises:
            InputError (a ValueError): neither speech_ids, nor text with input_features.
        """
        if speech_ids is None:
            has_text = input_ids is not None or conditioning_encoder_inputs_embeds is not None
            if not has_text or input_features is None:
                raise InputError("speech_ids are needed, or input_ids (or their embeddings) with input_features")
            options = (generation_config or self.generation_config).merged(kwargs)
            with torch.no_grad():
                prefixes = self._prefixes(input_features, input_ids, conditioning_encoder_inputs_embeds, attention_mask)
                rows = generate_rows(self.speech_decoder_model, prefixes, options)
                speech_ids, attention_mask = scored_ids(rows, options.pad, self.config, self.device)[1:]
        encoded: ClvpEncoderOutput = self.speech_encoder_model(
            input_ids=speech_ids, attention_mask=attention_mask, return_dict=True
        )
        assert encoded.embeds is not None
        return encoded.embeds

    def forward(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        conditioning_encoder_inputs_embeds: Tensor | None = None,
        text_encoder_inputs_embeds: Tensor | None = None,
        attention_mask: Tensor | None = None,
        return_loss: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = False,
        return_dict: bool | None = None,
    ) -> ClvpOutput | tuple[Any, ...]:
        """Text ids (T, S) and log-mels (T, 80, F) → `ClvpOutput`, one pass without generation.

        As published: the ids get no closing 0, the prompt takes decoder positions, and the "speech" is the most
        probable code at each position of the prompt. Text padding, by attention_mask, counts nowhere here.
        output_attentions has no effect, as published; ask the parts.

        Args:
            return_loss: also the contrastive loss over the pairs; as many texts as voices are needed.

        Raises:
            InputError (a ValueError): inputs that do not fit together.
        """
        if input_features is None:
            raise InputError("input_features are needed: the log-mels of a voice")
        states = choice(self.config, "output_hidden_states", output_hidden_states, False)
        if input_ids is not None:
            input_ids, attention_mask = left_aligned(input_ids, attention_mask)
        # The published call: the text encoder takes its own embeddings beside the decoder's ids, never both.
        text_ids = None if text_encoder_inputs_embeds is not None else input_ids
        prefix = self.conditioning_encoder(
            input_features,
            None if conditioning_encoder_inputs_embeds is not None else input_ids,
            conditioning_encoder_inputs_embeds,
            attention_mask,
        )
        decoded = self.speech_decoder_model(
            inputs_embeds=prefix, output_hidden_states=states, use_cache=False, return_dict=True
        )
        speech_ids, speech_mask = prompt_speech(decoded.logits.argmax(2), attention_mask, self.config.decoder_config)
        speech = self._encode(self.speech_encoder_model, speech_ids, speech_mask, states)
        text = self._encode(self.text_encoder_model, text_ids, attention_mask, states, text_encoder_inputs_embeds)
        output = self._compare(text, speech)
        if return_loss:
            assert output.logits_per_text is not None
            output.loss = self._loss(output.logits_per_text)
        output.decoder_hidden_states = decoded.hidden_states
        return output if choice(self.config, "return_dict", return_dict, True) else output.to_tuple()

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor | None = None,
        input_features: Tensor | None = None,
        attention_mask: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        pad_to_max_mel_tokens: int | None = None,
        output_hidden_states: bool | None = None,
        **kwargs: Any,
    ) -> ClvpOutput | tuple[Any, ...]:
        """Text ids (T, S) and log-mels (80 bands) of T voices, or one → candidates and their scores against the texts.

        Args:
            input_ids: at most max_text_tokens − 3 a row; one text goes with many voices, and one voice with many.
            attention_mask: (T, S), 0 for padding, which is taken off on whatever side it stands.
            generation_config, kwargs: see `GenerationConfig`; kwargs go first, unknown ones are an error.
            pad_to_max_mel_tokens: score each candidate padded to so many codes, the start code counted. A longer one
                keeps its codes (the published code cuts them off).
            output_hidden_states: also those of the decoder, for each code, and of both encoders.

        Returns:
            `ClvpOutput` with return_dict_in_generate, else the tuple of its fields, speech_ids first. speech_ids are
            fixed at the length of the batch's longest candidate, as published; the scores are those of each
            candidate's own length unless `pad` or pad_to_max_mel_tokens says otherwise.

        Raises:
            TextError: a text of too many ids.
            InputError: no text or no voice, or numbers of them that do not fit.
            ConfigError: a setting that is unknown, out of range, or not offered.
        """
        if input_ids is None or input_features is None:
            raise InputError("input_ids and input_features are needed: a text and the log-mels of a voice")
        options = (generation_config or self.generation_config).merged(
            {**kwargs, "output_hidden_states": output_hidden_states}
        )
        closed, mask = self._closed(input_ids, attention_mask)
        prefixes = self._prefixes(input_features, closed, None, mask)
        rows = generate_rows(self.speech_decoder_model, prefixes, options)
        unfinished = sum(not row.stopped for row in rows)
        if unfinished:
            log.warning(
                "%d of %d candidates did not stop: they end where max_new_tokens cut them", unfinished, len(rows)
            )
        pad = options.pad if pad_to_max_mel_tokens is None else max(1, pad_to_max_mel_tokens - 1)
        speech_ids, scored, speech_mask = scored_ids(rows, pad, self.config, self.device)
        states = bool(options.output_hidden_states)
        speech = self._encode(self.speech_encoder_model, scored, speech_mask, states)
        text = self._encode(self.text_encoder_model, closed, mask, states)
        output = self._compare(text, speech)
        output.speech_ids = speech_ids
        if states:
            decoded: GenerateDecoderOnlyOutput = collect(self.speech_decoder_model, prefixes, rows, options)
            output.decoder_hidden_states = decoded.hidden_states
        return output if options.return_dict_in_generate else output.to_tuple()

    def _closed(self, input_ids: Tensor, attention_mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Ids with the 0 that closes each text, pads behind it, and their mask."""
        ids, mask = left_aligned(input_ids, attention_mask)
        longest, most = ids.shape[1], self.config.decoder_config.max_text_tokens - 3
        if mask is not None:
            longest = int(mask.sum(1).max())
            ids, mask = ids[:, :longest], mask[:, :longest]
        if longest > most:
            raise TextError(f"text of {longest} ids: at most {most} can be spoken", "split it into sentences")
        closed = insert_stop(ids, self.config.text_config.eos_token_id)
        return closed, None if mask is None else F.pad(mask, (1, 0), value=1)

    def _prefixes(
        self, features: Tensor, ids: Tensor | None, embeds: Tensor | None, mask: Tensor | None
    ) -> list[Tensor]:
        """The decoder's prefix (P, D) of each row, its padding taken off."""
        if ids is not None:
            ids, mask = left_aligned(ids, mask)
        prefix = self.conditioning_encoder(features, ids, embeds, mask)
        if mask is None:
            return list(prefix)
        lengths = mask.sum(1).expand(len(prefix)) + 3  # voice, begin and stop
        return [row[: int(length)] for row, length in zip(prefix, lengths, strict=True)]

    def _encode(
        self, encoder: ClvpEncoder, ids: Tensor | None, mask: Tensor | None, states: bool, embeds: Tensor | None = None
    ) -> ClvpEncoderOutput:
        out: ClvpEncoderOutput = encoder(
            input_ids=ids, inputs_embeds=embeds, attention_mask=mask, output_hidden_states=states, return_dict=True
        )
        return out

    def _compare(self, text: ClvpEncoderOutput, speech: ClvpEncoderOutput) -> ClvpOutput:
        """Unit embeddings, and their cosines times exp(logit_scale), in float32."""
        assert text.embeds is not None and speech.embeds is not None
        text_embeds, speech_embeds = unit(text.embeds), unit(speech.embeds)
        logits_per_text = text_embeds @ speech_embeds.t() * self.logit_scale.float().exp()
        return ClvpOutput(
            logits_per_speech=logits_per_text.t(),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            speech_embeds=speech_embeds,
            text_model_output=text.pooler_output,
            speech_model_output=speech.pooler_output,
            text_encoder_hidden_states=text.hidden_states,
            speech_encoder_hidden_states=speech.hidden_states,
        )

    @staticmethod
    def _loss(similarity: Tensor) -> Tensor:
        if similarity.shape[0] != similarity.shape[1]:
            texts, candidates = similarity.shape
            raise InputError(
                f"return_loss: {texts} texts and {candidates} voices make no pairs", "give as many of each"
            )
        return contrastive_loss(similarity)
