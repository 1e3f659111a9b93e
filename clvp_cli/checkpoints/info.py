"""What a model on disk is, in numbers, for people: format, files, parameters by part, sizes, side models.

Torch-free for safetensors: only headers are read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..config import ClvpDecoderConfig, ClvpEncoderConfig
from .checkpoint import ABILITY, Checkpoint
from .layout import PARTS, SCALE, SCALES, derived_shapes, part_of
from .load import open_checkpoint
from .tensors import TensorInfo


def describe(path: Path) -> dict[str, Any]:
    """Open and check a checkpoint, and tell what it is; the content is plain data, ready for JSON.

    Raises:
        CheckpointError, ConfigError: as `open_checkpoint`.
    """
    checkpoint = open_checkpoint(path)
    derived = derived_shapes(checkpoint.config)
    weights = [
        info
        for name, info in checkpoint.tensors.items()
        if name not in derived and not name.endswith(f"weight{SCALES}")
    ]
    files = [*checkpoint.store.files, *(file for extra in checkpoint.extras.values() for file in extra.store.files)]
    return {
        "path": str(path),
        "format": checkpoint.format,
        "files": [{"name": _name(file, path), "bytes": file.stat().st_size} for file in dict.fromkeys(files)],
        "bytes": sum(file.stat().st_size for file in set(files)),
        "tensors": len(checkpoint.tensors),
        "dtypes": dtypes(weights),
        "parameters": {**parameters(weights), "total": sum(info.numel for info in weights)},
        "can": sorted({ABILITY[part] for part in checkpoint.parts}),
        "sizes": _sizes(checkpoint),
        "extras": {
            name: {
                "format": extra.format,
                "parameters": sum(info.numel for info in extra.tensors.values()),
                "dtypes": dtypes(extra.tensors.values()),
                "config": {key: value for key, value in extra.config.items() if key != "model_type"},
            }
            for name, extra in checkpoint.extras.items()
        },
        "ignored": dict(checkpoint.ignored),
    }


def parameters(infos: Iterable[TensorInfo]) -> dict[str, int]:
    """Parameters by part, in the layout's order: conditioning, decoder, text, speech, logit_scale."""
    counts: Counter[str] = Counter()
    for info in infos:
        counts[part_of(info.name)] += info.numel
    return {part: counts[part] for part in (*PARTS, SCALE) if part in counts}


def dtypes(infos: Iterable[TensorInfo]) -> dict[str, int]:
    """Parameters by type."""
    counts: Counter[str] = Counter()
    for info in infos:
        counts[info.dtype] += info.numel
    return dict(counts)


def _name(file: Path, path: Path) -> str:
    return str(file.relative_to(path)) if path.is_dir() else file.name


def _sizes(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    tell: Mapping[str, dict[str, Any]] = {
        "conditioning": {
            "blocks": config.decoder_config.num_mel_attn_blocks,
            "mels": config.decoder_config.feature_size,
            "text_positions": config.decoder_config.max_text_tokens,
        },
        "decoder": _decoder(config.decoder_config),
        "text": _encoder(config.text_config),
        "speech": _encoder(config.speech_config),
    }
    return {part: tell[part] for part in checkpoint.parts}


def _decoder(config: ClvpDecoderConfig) -> dict[str, Any]:
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
    }


def _encoder(config: ClvpEncoderConfig) -> dict[str, Any]:
    return {
        "layers": config.num_hidden_layers,
        "width": config.hidden_size,
        "heads": config.num_attention_heads,
        "vocabulary": config.vocab_size,
        "projection": config.projection_dim,
    }
