"""Tiny corpora and configurations that the tests of training share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from clvp_cli.training.phones import ALPHABET

WORDS = ["the", "cat", "sat", "on", "a", "mat", "while", "two", "dogs", "ran", "home", "past", "ten", "old", "trees"]
ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "projection_dim": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "dropout": 0.1,
}
SIZES: dict[str, Any] = {
    "projection_dim": 32,
    "text_config": {**ENCODER, "vocab_size": 256},
    "speech_config": {**ENCODER, "vocab_size": 64},
    "decoder_config": {
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_mel_attn_blocks": 1,
        "vocab_size": 66,
        "bos_token_id": 64,
        "eos_token_id": 65,
        "max_position_embeddings": 64,
        "max_text_tokens": 64,
        "decoder_fixing_codes": [3, 1, 1, 2],
    },
    "phones": {"hidden_size": 24},
    "alignment": {"hidden_size": 16, "num_layers": 1, "kernel_size": 3},
    "codec": {
        "num_codes": 64,
        "codebook_dim": 8,
        "hidden_size": 16,
        "num_residual_blocks": 1,
        "unit_latents": True,
        "relative": True,
        "voice_dim": 8,
        "voice_hidden": 16,
    },
}


def write_corpus(directory: Path, clips: int = 24, *, audio: bool = False) -> Path:
    """A manifest of clips whose codes spell their words; with `audio`, sounds whose pitches do, one phone a word."""
    rng = np.random.default_rng(0)
    directory.mkdir(parents=True, exist_ok=True)
    lines = []
    for number in range(clips):
        words = [WORDS[i] for i in rng.integers(len(WORDS), size=4)]
        line: dict[str, Any] = {"text": " ".join(words), "speaker": f"speaker-{number % 3}"}
        line["split"] = "heldout" if number % 6 == 5 else "train"
        if audio:
            line["audio"] = f"{number}.wav"
            line["phones"] = " ".join(ALPHABET[WORDS.index(word)] for word in words)
            write_sound(directory / f"{number}.wav", [WORDS.index(word) for word in words])
        else:
            line["codes"] = [int(c) for word in words for c in 4 * [4 + 4 * WORDS.index(word) % 56]]
        lines.append(line)
    path = directory / "manifest.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def write_sound(path: Path, pitches: list[int]) -> None:
    """A tone for each pitch, 0.2 s each."""
    import soundfile

    time = np.arange(4410) / 22050
    tones = [0.3 * np.sin(2 * np.pi * (200 + 90 * pitch) * time) * np.hanning(len(time)) for pitch in pitches]
    soundfile.write(path, np.concatenate(tones).astype(np.float32), 22050)


def write_config(path: Path, manifest: Path, **changes: dict[str, Any]) -> Path:
    """A training YAML for a few quick steps; `changes` are merged into its sections."""
    content: dict[str, Any] = {
        "data": {"manifest": str(manifest), "cache": str(path.parent / "cache")},
        "optim": {"learning_rate": 5e-3, "warmup": 3},
        "loop": {
            "steps": 12,
            "batch_frames": 160,
            "batch_clips": 8,
            "evaluate_every": 6,
            "held_out_batches": 1,
            "save_every": 6,
            "log_every": 1,
            "device": "cpu",
            "plot": False,
        },
        "codec": {"continuous_steps": 4, "crop_seconds": 1.0},
        "pair": {},
        "decoder": {"voice_frames": 32},
        "model": SIZES,
    }
    for section, values in changes.items():
        content[section] = {**content[section], **values}
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def read_log(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without the times they took."""
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
