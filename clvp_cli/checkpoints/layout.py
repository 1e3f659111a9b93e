"""The published layout: every name and shape that a configuration calls for, its parts, and its derived tables.

This is the one canonical state; every other format is adapted to it. Owns names and shapes, and telling what a state
lacks. Knows nothing of files. Torch-free, so that `clvp model info` is; a test holds it equal to the modules' state.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from ..config import ClvpConfig, ClvpDecoderConfig, ClvpEncoderConfig
from ..documents import short
from ..errors import CheckpointError
from .tensors import FLOAT_TYPES, MAX_NAME, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]

# The parts that can stand alone, and where their names begin. logit_scale goes with the encoders.
PARTS: Mapping[str, str] = {
    "conditioning": "conditioning_encoder.",
    "decoder": "speech_decoder_model.",
    "text": "text_encoder_model.",
    "speech": "speech_encoder_model.",
}
SCALE = "logit_scale"
INV_FREQ = "rotary_pos_emb.inv_freq"  # published files carry it; it is a function of the configuration
SCALES = "_scale"  # behind a weight's name ("….weight"): its scales, where the weight is kept in 8 bits
ROUNDED = "I8"  # the type of such a weight, as safetensors names it
TEXT_ROWS = "text_vocab_size"  # in the decoder's configuration, where a fine-tune's differs from the text encoder's
SHOWN = 4  # names in one message


def expected_shapes(config: ClvpConfig, parts: Collection[str] = tuple(PARTS)) -> dict[str, Shape]:
    """Name → shape of every tensor these parts have in a model of this configuration, derived tables left out."""
    shapes: dict[str, Shape] = {SCALE: ()} if "text" in parts or "speech" in parts else {}
    named = {
        "conditioning": _conditioning(config),
        "decoder": _decoder(config.decoder_config),
        "text": _encoder(config.text_config),
        "speech": _encoder(config.speech_config),
    }
    for part in parts:
        shapes.update((PARTS[part] + name, shape) for name, shape in named[part])
    return shapes


def derived_shapes(config: ClvpConfig) -> dict[str, Shape]:
    """Name → shape of the tables that published files carry and that follow from the configuration."""
    return {
        f"{PARTS[part]}{INV_FREQ}": ((encoder.rotary_dim + 1) // 2,)
        for part, encoder in (("text", config.text_config), ("speech", config.speech_config))
        if encoder.use_rotary_embedding
    }


def derived_tables(config: ClvpConfig) -> dict[str, Tensor]:
    """The derived tables themselves, for saving and for checking what a file carries."""
    from ..model.encoder import rotary_inv_freq

    encoders = {PARTS["text"]: config.text_config, PARTS["speech"]: config.speech_config}
    return {name: rotary_inv_freq(encoders[name.removesuffix(INV_FREQ)]) for name in derived_shapes(config)}


def part_of(name: str) -> str:
    """The part a name belongs to; "logit_scale" and unknown names stand for themselves."""
    return next((part for part, prefix in PARTS.items() if name.startswith(prefix)), name)


def parts_in(names: Mapping[str, object]) -> tuple[str, ...]:
    """The parts of which at least one name is there, in the order of `PARTS`."""
    there = {part_of(name) for name in names}
    return tuple(part for part in PARTS if part in there)


def is_published(names: Iterable[str]) -> bool:
    """Whether names are this layout's; Tortoise's too begin with "conditioning_encoder."."""
    return any(name.startswith((*list(PARTS.values())[1:], "conditioning_encoder.mel_conv.")) for name in names)


def check_state(where: str, infos: Mapping[str, TensorInfo], config: ClvpConfig) -> None:
    """Raise CheckpointError unless `infos` are exactly the parts they begin: none missing, extra or misshapen."""
    parts = parts_in(infos)
    for part in parts:
        depth = _depth(config, part)
        if depth > len(infos):  # told before a name is made up for each of a billion layers
            raise CheckpointError(f"{where}: the configuration calls for {depth} {part} layers, few are there")
    expected = expected_shapes(config, parts)
    derived = {name: shape for name, shape in derived_shapes(config).items() if name in infos}
    rounded = [name for name in expected if roundable(name) and name in infos and infos[name].dtype == ROUNDED]
    scales = {name + SCALES: scale_shape(name, expected[name]) for name in rounded}
    told = {**infos, **{name: replace(infos[name], dtype="F32") for name in rounded}}  # what they stand for
    check_shapes(where, told, {**expected, **derived, **scales})


def roundable(name: str) -> bool:
    """Whether a name is one of the decoder's large matrices or its table of codes, which may be kept in 8 bits."""
    stack = f"{PARTS['decoder']}model.decoder."
    if name == f"{stack}input_embeds_layer.weight":
        return True
    return name.startswith(f"{stack}layers.") and name.endswith(("_proj.weight", "c_fc.weight"))


def stored_turned(name: str) -> bool:
    """Whether a decoder matrix is stored (in, out), as GPT-2's are."""
    return ".mlp." in name


def scale_shape(name: str, shape: Shape) -> Shape:
    """The shape of a weight's scales: one for each output."""
    return (shape[-1] if stored_turned(name) else shape[0],)


def _depth(config: ClvpConfig, part: str) -> int:
    return {
        "conditioning": config.decoder_config.num_mel_attn_blocks,
        "decoder": config.decoder_config.num_hidden_layers,
        "text": config.text_config.num_hidden_layers,
        "speech": config.speech_config.num_hidden_layers,
    }[part]


def check_shapes(where: str, infos: Mapping[str, TensorInfo], expected: Mapping[str, Shape]) -> None:
    """Raise CheckpointError naming what `infos` lack, have too much, or have in another shape or as integers."""
    faults = {
        "missing": [name for name in expected if name not in infos],
        "unknown": [name for name in infos if name not in expected],
        "misshapen": [
            f"{name} {list(infos[name].shape)}, not {list(shape)}"
            for name, shape in expected.items()
            if name in infos and infos[name].shape != shape
        ],
        "not floating point": [
            f"{name} {infos[name].dtype}" for name in expected if name in infos and infos[name].dtype not in FLOAT_TYPES
        ],
    }
    raise_faults(where, faults)


def raise_faults(where: str, faults: Mapping[str, list[str]]) -> None:
    """Raise CheckpointError telling how many names each fault has, and the first few; do nothing without faults."""
    told = [f"{len(names)} {fault}: {listed(names)}" for fault, names in faults.items() if names]
    if told:
        raise CheckpointError(
            f"{where}: {'; '.join(told)}", "the weights belong to another model or version, or the file is incomplete"
        )


def listed(names: list[str]) -> str:
    """The first few names, and that there are more."""
    told = (name if len(name) <= MAX_NAME and name.isprintable() else short(name) for name in names[:SHOWN])
    return ", ".join(told) + (", …" if len(names) > SHOWN else "")


def _linear(name: str, rows: int, columns: int, bias: bool = True) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (rows, columns)
    if bias:
        yield f"{name}.bias", (rows,)


def _norm(name: str, width: int) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _attention(name: str, width: int, bias: bool) -> Iterator[tuple[str, Shape]]:
    for projection in ("k_proj", "v_proj", "q_proj"):
        yield from _linear(f"{name}.{projection}", width, width, bias)
    yield from _linear(f"{name}.out_proj", width, width)


def _conditioning(config: ClvpConfig) -> Iterator[tuple[str, Shape]]:
    decoder = config.decoder_config
    width = decoder.hidden_size
    yield "text_token_embedding.weight", (decoder.extra.get(TEXT_ROWS, config.text_config.vocab_size), width)
    yield "text_position_embedding.weight", (decoder.max_text_tokens, width)
    yield "mel_conv.weight", (width, decoder.feature_size, 1)
    yield "mel_conv.bias", (width,)
    for block in range(decoder.num_mel_attn_blocks):
        yield from _norm(f"group_norms.{block}", width)
        yield from _attention(f"mel_attn_blocks.{block}", width, decoder.use_attention_bias)


def _decoder(config: ClvpDecoderConfig) -> Iterator[tuple[str, Shape]]:
    width, inner = config.hidden_size, config.n_inner or 4 * config.hidden_size
    stack = "model.decoder."
    yield f"{stack}input_embeds_layer.weight", (config.vocab_size, width)
    yield f"{stack}position_embeds_layer.weight", (config.max_position_embeddings, width)
    for layer in range(config.num_hidden_layers):
        name = f"{stack}layers.{layer}"
        yield from _norm(f"{name}.input_layernorm", width)
        yield from _attention(f"{name}.attn", width, config.use_attention_bias)
        yield from _norm(f"{name}.post_attention_layernorm", width)
        yield from (
            (f"{name}.mlp.c_fc.weight", (width, inner)),
            (f"{name}.mlp.c_fc.bias", (inner,)),
        )  # stored (in, out)
        yield from ((f"{name}.mlp.c_proj.weight", (inner, width)), (f"{name}.mlp.c_proj.bias", (width,)))
    yield from _norm(f"{stack}layer_norm", width)
    yield from _norm("final_norm", width)
    yield from _linear("lm_head", config.vocab_size, width)


def _encoder(config: ClvpEncoderConfig) -> Iterator[tuple[str, Shape]]:
    width = config.hidden_size
    yield "token_embedding.weight", (config.vocab_size, width)
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        yield from _attention(f"{name}.self_attn", width, config.use_attention_bias)
        yield from _linear(f"{name}.mlp.fc1.proj", 2 * config.intermediate_size, width)
        yield from _linear(f"{name}.mlp.fc2", width, config.intermediate_size)
        yield f"{name}.input_rmsnorm.weight", (width,)
        yield f"{name}.post_attention_rmsnorm.weight", (width,)
    yield from _norm("final_layer_norm", width)
    yield "projection.weight", (config.projection_dim, width)
