"""Golden files of transformers' CLVP (made with transformers 4.46.3): every block, scores, losses and generation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from files import half, write_arrays
from oracle import builders
from safetensors.torch import save_file
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

Arrays = dict[str, Any]
START, STOP = builders.CODES, builders.CODES + 1
SUMMARIES = ("mean", "last", "first", "cls_index")


@torch.no_grad()
def make(directory: Path) -> None:
    """Write hf_partial.*, hf_biased.* and hf_sampling.npz."""
    arrays = inputs(seed=102)
    model = _stopping_model(builders.clvp_config(speech=PARTIAL_SPEECH, decoder=PARTIAL_DECODER), arrays)
    for part in (conditioning, decoder, encoders, forward, fixing, generation, beams):
        arrays |= part(model, arrays)
    _write(directory, "hf_partial", model, arrays)

    model = builders.clvp_model(builders.clvp_config(BIASED_TEXT, BIASED_SPEECH, BIASED_DECODER), seed=111)
    arrays = inputs(seed=112)
    for part in (conditioning, decoder, encoders, forward):
        arrays |= part(model, arrays)
    _write(directory, "hf_biased", model, arrays)
    write_arrays(directory / "hf_sampling.npz", sampling(seed=121))


# Two heads of 40, of which 32 dimensions turn.
PARTIAL_SPEECH = {"hidden_size": 80, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
PARTIAL_DECODER = {"hidden_size": 24, "num_attention_heads": 3}
# A head of 64 of which 48 turn, biases in the encoders and none in the decoder, other epsilons, odd depths.
BIASED_TEXT = {"hidden_size": 64, "projection_dim": 96, "num_hidden_layers": 1, "use_attention_bias": True}
BIASED_TEXT |= {"layer_norm_eps": 1e-3, "intermediate_size": 24}
BIASED_SPEECH = {"projection_dim": 96, "num_hidden_layers": 1, "use_attention_bias": True, "hidden_size": 48}
BIASED_DECODER = {"use_attention_bias": False, "n_inner": 48, "num_hidden_layers": 1, "num_mel_attn_blocks": 1}
BIASED_DECODER |= {"hidden_size": 16, "num_attention_heads": 2, "layer_norm_epsilon": 1e-3}


def inputs(seed: int) -> Arrays:
    """ids (2, 6) with one padded row and its mask (2, 6), features (2, 80, 9), codes (3, 8) within the vocabulary."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(1, builders.TEXT_BOS, (2, 6), generator=generator)
    mask = torch.ones(2, 6, dtype=torch.long)
    ids[1, 4:], mask[1, 4:] = 0, 0
    return {
        "ids": ids,
        "mask": mask,
        "features": torch.randn(2, 80, 9, generator=generator),
        "codes": torch.randint(0, builders.CODES, (3, 8), generator=generator),
    }


def conditioning(model: Any, given: Arrays) -> Arrays:
    """The prefix [mel vector | text] of two pairs, of two pairs with a mask, and of one text with two voices."""
    encoder = model.conditioning_encoder
    ids, features = given["ids"], given["features"]
    return {
        "conditioning.prefix": encoder(input_features=features, input_ids=ids),
        "conditioning.prefix_masked": encoder(
            input_features=features, input_ids=ids, attention_mask=given["mask"]
        ),
        "conditioning.prefix_one_text": encoder(input_features=features, input_ids=ids[:1]),
    }  # fmt: skip


def decoder(model: Any, given: Arrays) -> Arrays:
    """The decoder over bare codes (positions 0 1 2 …), its loss with labels, and after a prefix without positions.

    decoder.prefix_* are the uncached logits and final_norm outputs at the places of [start, codes[0]] after the prefix
    of text 0 and voice 0, at the trained code positions 0 1 2 …
    """
    causal = model.speech_decoder_model
    codes = given["codes"]
    plain = causal(input_ids=codes, labels=codes, output_hidden_states=True, return_dict=True, use_cache=False)
    prefix = model.conditioning_encoder(input_features=given["features"][:1], input_ids=given["ids"][:1])
    sequence = torch.cat([torch.tensor([[START]]), codes[:1]], dim=1)
    table = causal.model.decoder.position_embeds_layer
    embeds = causal.model.decoder.input_embeds_layer(sequence) + table(torch.arange(sequence.shape[1]))
    whole = torch.cat([prefix, embeds], dim=1)
    # transformers adds positions to every input; taking them off first leaves the prefix without any
    hidden = causal.model(inputs_embeds=whole - table(torch.arange(whole.shape[1])), use_cache=False)[0]
    latents = causal.final_norm(hidden)[:, prefix.shape[1] :]
    return {
        "decoder.logits": plain.logits,
        "decoder.hidden": torch.stack(plain.hidden_states),
        "decoder.loss": plain.loss,
        "decoder.prefix_logits": causal.lm_head(latents),
        "decoder.prefix_latents": latents,
    }


def encoders(model: Any, given: Arrays) -> Arrays:
    """Both encoders: every layer, the last hidden state, and for each summary type the pooled and projected vectors."""
    out = {}
    for name, encoder, ids in (
        ("text", model.text_encoder_model, given["ids"]),
        ("speech", model.speech_encoder_model, given["codes"]),
    ):
        result = encoder(input_ids=ids, output_hidden_states=True, return_dict=True)
        out[f"{name}.hidden"] = torch.stack(result.hidden_states)
        out[f"{name}.last_hidden_state"] = result.last_hidden_state
        kept = encoder.sequence_summary.summary_type
        for summary in SUMMARIES:
            encoder.sequence_summary.summary_type = summary
            result = encoder(input_ids=ids, return_dict=True)
            out[f"{name}.pooled_{summary}"] = result.pooler_output
            out[f"{name}.embeds_{summary}"] = result.embeds
        encoder.sequence_summary.summary_type = kept
    masked = model.text_encoder_model(input_ids=given["ids"], attention_mask=given["mask"], return_dict=True)
    return out | {"text.masked_last_hidden_state": masked.last_hidden_state, "text.masked_embeds": masked.embeds}


def forward(model: Any, given: Arrays) -> Arrays:
    """The whole forward pass with its contrastive loss."""
    out = model(
        input_ids=given["ids"], input_features=given["features"], attention_mask=given["mask"],
        return_loss=True, return_dict=True,
    )  # fmt: skip
    names = ("loss", "logits_per_speech", "logits_per_text", "text_embeds", "speech_embeds")
    return {f"forward.{name}": getattr(out, name) for name in names}


def fixing(model: Any, given: Arrays) -> Arrays:
    """fix_speech_decoder_output: rows of [start, codes …] in, fixed rows out."""
    b, e = START, STOP
    rows = [
        [b, 1, 2, 3, e, 5, 6, 7, 8],
        [b, 1, 2, 3, 4, 5, 6, 7, e],
        [b, 1, 2, 3, 4, 5, 6, e, e],
        [b, e, 2, 3, 4, e, 6, 7, 8],
        [b, 1, 2, 3, 4, 5, 6, 7, 8],
        [b, 1, 2, 3, 4, e, e, e, e],
    ]
    return {"fixing.given": rows, "fixing.fixed": model.fix_speech_decoder_output(torch.tensor(rows))}


def generation(model: Any, given: Arrays) -> Arrays:
    """Greedy codes as transformers gives them: cached, so at the code positions 0 2 3 4 ….

    sequences begin with the start code and are padded with the stop code; logits[i] belongs to the code after i codes.
    whole.* is the composite generate() with its scores, padded.* the same with pad_to_max_mel_tokens = 20.
    """
    greedy = {"max_new_tokens": 14, "do_sample": False, "return_dict_in_generate": True}
    prefix = model.conditioning_encoder(input_features=given["features"], input_ids=given["ids"][:1])
    out = model.speech_decoder_model.generate(conditioning_embeds=prefix, output_logits=True, **greedy)
    penalised = model.speech_decoder_model.generate(conditioning_embeds=prefix, repetition_penalty=2.0, **greedy)
    arrays = {
        "greedy.sequences": out.sequences,
        "greedy.logits": torch.stack(out.logits),
        "greedy.penalised_sequences": penalised.sequences,
    }
    names = ("speech_ids", "logits_per_text", "text_embeds", "speech_embeds")
    for label, extra in (("whole", {}), ("padded", {"pad_to_max_mel_tokens": 20})):
        result = model.generate(input_ids=given["ids"][:1], input_features=given["features"], **greedy, **extra)
        arrays |= {f"{label}.{name}": getattr(result, name) for name in names}
    return arrays


def beams(model: Any, given: Arrays) -> Arrays:
    """Beam search with 3 and 4 beams, two voices at once, and the best two of 4 beams."""
    prefix = model.conditioning_encoder(input_features=given["features"], input_ids=given["ids"][:1])
    settings = {"max_new_tokens": 12, "do_sample": False, "return_dict_in_generate": True, "output_scores": True}
    arrays = {}
    for beams, kept in ((3, 1), (4, 1), (4, 2)):
        out = model.speech_decoder_model.generate(
            conditioning_embeds=prefix, num_beams=beams, num_return_sequences=kept, **settings
        )
        arrays[f"beams.{beams}_{kept}.sequences"] = out.sequences
        arrays[f"beams.{beams}_{kept}.scores"] = out.sequences_scores
    return arrays


def sampling(seed: int) -> Arrays:
    """Logits (4, 40) and history (4, 7) with the scores after each published processor, alone and all in order."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(4, 40, generator=generator)
    history = torch.randint(0, 40, (4, 7), generator=generator)
    steps = {
        "repetition": RepetitionPenaltyLogitsProcessor(2.0),
        "temperature": TemperatureLogitsWarper(0.8),
        "top_k": TopKLogitsWarper(9),
        "top_p": TopPLogitsWarper(0.8),
    }
    arrays = {"logits": logits, "history": history}
    arrays |= {name: step(history, logits.clone()) for name, step in steps.items()}
    arrays["all"] = LogitsProcessorList(steps.values())(history, logits.clone())
    return arrays


def _stopping_model(config: Any, given: Arrays) -> Any:
    """The first model, by seed and then by its stop code's bias, of whose two voices just one stops, after 4 codes."""
    for seed in range(101, 131):
        model = builders.clvp_model(config, seed)
        bias = model.speech_decoder_model.lm_head.bias
        prefix = model.conditioning_encoder(input_features=given["features"], input_ids=given["ids"][:1])
        for _ in range(40):
            out = model.speech_decoder_model.generate(conditioning_embeds=prefix, max_new_tokens=14, do_sample=False)
            stops = (out == STOP).int()
            if stops.any(1).sum() == 1 and not stops[:, :5].any():
                return model
            bias[STOP] += 0.25
    raise AssertionError("no seed gives one voice that stops and one that does not")


def _write(directory: Path, name: str, model: Any, arrays: Arrays) -> None:
    save_file(half(model.state_dict()), directory / f"{name}.safetensors", metadata={"format": "pt"})
    model.config.to_json_file(directory / f"{name}.json")  # what save_pretrained writes as config.json
    write_arrays(directory / f"{name}.npz", arrays)
