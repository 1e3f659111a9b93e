"""Files that cannot be used, of every kind, made once for the tests of bad input."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import struct
from pathlib import Path

import numpy as np
import soundfile
from command_line import tone

MARKER = "a-pickle-was-executed"


class Hostile:
    """A pickle that would make a file where it is executed."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return os.open, (str(self.marker), os.O_CREAT | os.O_WRONLY)


def make_all(at: Path, tiny_model: Path, plain_model: Path) -> None:
    """Everything below `at`: good files to set beside, candidates, audio, texts, settings and models."""
    make_candidates(at)
    make_audio(at)
    make_texts(at)
    make_settings(at)
    make_models(at, tiny_model, plain_model)
    (at / "directory").mkdir()


def make_candidates(at: Path) -> None:
    """Candidate files of every format: good, cut short, of the wrong type or shape."""
    codes = np.array([[1, 2, 3, 8193], [4, 5, 6, 7]])
    np.save(at / "good.npy", codes)
    np.savez(at / "good.npz", codes=codes)
    (at / "good.jsonl").write_text('{"codes": [1, 2, 3]}\n{"codes": [4, 5, 6]}\n')
    (at / "good.txt").write_text("<1><2><3>\n<4><5>\n")
    for name in ("good.npy", "good.npz", "good.jsonl"):
        whole = (at / name).read_bytes()
        (at / f"cut.{name.partition('.')[2]}").write_bytes(whole[: len(whole) - 9])
    (at / "header.npy").write_bytes((at / "good.npy").read_bytes()[:20])
    (at / "cut.txt").write_text("<1><2><3>\n<4><5")
    np.save(at / "float.npy", codes.astype(np.float32))
    np.save(at / "nan.npy", np.array([[1.0, np.nan]]))
    np.save(at / "deep.npy", codes[None])
    np.save(at / "none.npy", np.zeros((0, 4), np.int64))
    np.save(at / "empty-row.npy", np.array([[8193, 8193], [1, 2]]))
    np.save(at / "outside.npy", np.array([[1, 9000]]))
    np.save(at / "negative.npy", np.array([[1, -7]]))
    ragged = np.empty(2, dtype=object)
    ragged[:] = [[1, 2], [3]]
    np.save(at / "ragged.npy", ragged, allow_pickle=True)
    np.savez(at / "unnamed.npz", other=codes)
    np.savez(at / "lengths.npz", codes=codes, lengths=np.array([99, 1]))
    lines = {
        "broken": '{"codes": [1, 2]}\n{"codes": [1, \n', "nested": '{"codes": [[1, 2], [3]]}\n',
        "float": '{"codes": [1, 2.5]}\n', "nan": '{"codes": [1, NaN]}\n', "text": '{"codes": "1 2 3"}\n',
        "codeless": '{"code": [1]}\n', "array": "[1, 2, 3]\n", "empty-codes": '{"codes": []}\n',
        "textless": '{"codes": [1, 2], "line": 1}\n',
    }  # fmt: skip
    for name, content in lines.items():
        (at / f"{name}.jsonl").write_text(content)
    (at / "words.txt").write_text("these are no units\n")
    (at / "empty.npy").write_bytes(b"")
    (at / "compressed.jsonl.gz").write_bytes(b"\x1f\x8b\x08\x00" + bytes(20))
    (at / "cut.parquet").write_bytes(b"PAR1" + bytes(30))
    for name in ("pickle.npy", "pickle.npz", "pickle.jsonl"):
        (at / name).write_bytes(pickle.dumps(Hostile(at / MARKER)))


def make_audio(at: Path) -> None:
    """Sound files: good, cut short, silent, not finite, without samples."""
    soundfile.write(at / "good.wav", tone(), 22050, subtype="PCM_16")
    soundfile.write(at / "good.flac", tone(), 22050)
    soundfile.write(at / "stereo.wav", np.stack([tone(), tone(pitch=90)], axis=1), 44100)
    soundfile.write(at / "silent.wav", np.zeros(22050), 22050)
    soundfile.write(at / "nan.wav", np.full(22050, np.nan, np.float32), 22050, subtype="FLOAT")
    soundfile.write(at / "none.wav", np.zeros(0), 22050)
    for name, kept in (("wav", 9000), ("flac", 6000)):
        (at / f"cut.{name}").write_bytes((at / f"good.{name}").read_bytes()[:kept])
    (at / "empty.wav").write_bytes(b"")
    (at / "words.wav").write_text("this is no sound\n")
    np.savez(at / "narrow.npz", vectors=np.zeros((1, 7), np.float32))
    np.savez(at / "voiceless.npz", other=np.zeros(3))
    np.savez(at / "huge-voice.npz", vectors=np.full((1, 64), 1e300))
    np.savez(at / "nan-voice.npz", vectors=np.full((1, 64), np.nan, np.float32))


def make_texts(at: Path) -> None:
    """Text files: good, without text, not UTF-8."""
    (at / "lines.txt").write_text("One line.\nAnother line.\n")
    (at / "blank.txt").write_text("\n   \n\n")
    (at / "latin.txt").write_bytes("Ein Stück.\n".encode("latin-1"))
    (at / "utf16.txt").write_bytes("Hello.\n".encode("utf-16"))
    (at / "binary.txt").write_bytes(bytes(range(256)))


def make_settings(at: Path) -> None:
    """YAML files that are no settings."""
    (at / "typo.yaml").write_text("sampling: {temprature: 0.5}\n")
    (at / "type.yaml").write_text("sampling: {n: many}\n")
    (at / "list.yaml").write_text("- a\n- b\n")
    (at / "broken.yaml").write_text("sampling: {n: [\n")
    (at / "group.yaml").write_text("sampling: 5\n")


def make_models(at: Path, tiny_model: Path, plain_model: Path) -> None:
    """Model directories: without weights, with keys missing, extra and misshapen, cut short, hostile."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(plain_model, at / "plain")
    weights = load_file(plain_model / "model.safetensors")
    name = "text_encoder_model.projection.weight"
    assert name in weights
    spoiled = {
        "missing": {key: value for key, value in weights.items() if key != name},
        "extra": weights | {"something.else": np.zeros(3, np.float32)},
        "misshapen": weights | {name: np.zeros((3, 3), np.float32)},
    }
    for kind, state in spoiled.items():
        (at / kind).mkdir()
        shutil.copy(plain_model / "config.json", at / kind)
        save_file(state, at / kind / "model.safetensors")
    for kind in ("weightless", "cut-model", "header-model", "broken-config", "wrong-config", "hostile-bin"):
        (at / kind).mkdir()
        shutil.copy(plain_model / "config.json", at / kind)
    whole = (plain_model / "model.safetensors").read_bytes()
    (at / "cut-model" / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    (at / "header-model" / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    shutil.copy(plain_model / "model.safetensors", at / "broken-config")
    (at / "broken-config" / "config.json").write_text('{"model_type": "clvp", ')
    shutil.copy(plain_model / "model.safetensors", at / "wrong-config")
    content = json.loads((plain_model / "config.json").read_text())
    content["decoder_config"]["hidden_size"] = "wide"
    (at / "wrong-config" / "config.json").write_text(json.dumps(content))
    hostile = pickle.dumps(Hostile(at / MARKER))
    (at / "hostile-bin" / "pytorch_model.bin").write_bytes(hostile)
    (at / "hostile-pth").mkdir()
    (at / "hostile-pth" / "autoregressive.pth").write_bytes(hostile)
    (at / "empty-model").mkdir()
