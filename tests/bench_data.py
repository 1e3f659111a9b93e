"""Something to evaluate in tests: a directory of made-up speech for judging, and stand-ins for the evaluators."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import numpy as np
import pytest

SAID = ["go there", "we call it a bear", "this is a longer line of text", "three two one", "look at him", "a fine day"]
RATE = 22050


def buzz(seconds: float, pitch: float, seed: int) -> np.ndarray:
    """A tone in noise (n,), float32, of its own for each seed."""
    at = np.arange(round(seconds * RATE)) / RATE
    noise = np.random.default_rng(seed).normal(0, 0.02, len(at))
    return (0.3 * np.sin(2 * np.pi * pitch * at * (1 + 0.1 * at)) + noise).astype(np.float32)


def judging_data(directory: Path) -> Path:
    """Two sets for judging of three and six clips, one for training, and a manifest with the line ends of Windows."""
    import soundfile

    rows = ["set\tfile\tspeaker\tseconds\ttext\tlicense\tsource"]
    sets = {"dev/one": SAID[:3], "dev/two": SAID, "train/own": SAID[:1]}
    for number, (name, texts) in enumerate(sets.items()):
        (directory / name).mkdir(parents=True)
        for place, text in enumerate(texts):
            seconds = 1.3 + 0.2 * place
            file = f"{name}/{place}.wav"
            soundfile.write(directory / file, buzz(seconds, 120 + 30 * place + 7 * number, place), RATE)
            rows.append(f"{name}\t{file}\tspeaker{place % 2}\t{seconds:.2f}\t{text}\tfree\there")
    (directory / "manifest.tsv").write_bytes("\r\n".join([*rows, ""]).encode())
    return directory


class FakeRecogniser:
    """hama's recogniser: hears the first letters of a fixed sentence, more of them in longer clips."""

    def __call__(self, samples: np.ndarray, rate: int) -> types.SimpleNamespace:
        assert rate == 16000
        return types.SimpleNamespace(phonemes=list("gothere")[: len(samples) // 4000])


class FakeG2P:
    """hama's G2P: a letter is a phoneme."""

    def predict(self, text: str) -> types.SimpleNamespace:
        return types.SimpleNamespace(alignments=[types.SimpleNamespace(phoneme=letter) for letter in text])


class FakeEncoder:
    """resemblyzer's encoder: a voice is its clip's length and level."""

    def __init__(self, device: str, verbose: bool) -> None:
        assert device == "cpu" and not verbose

    def embed_utterance(self, samples: np.ndarray) -> np.ndarray:
        vector = np.array([len(samples) / 16000, float(np.abs(samples).mean())])
        return vector / np.linalg.norm(vector)


class FakeOpinion:
    """DistillMOS: finds everything fair, and says so where records go."""

    def eval(self) -> FakeOpinion:
        """Itself."""
        print("weights loaded")
        return self

    def __call__(self, samples: object) -> np.ndarray:
        return np.full((1, 1), 3.0)


def fake_evaluators(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-ins where the real ones would be imported from."""
    hama, resemblyzer = types.ModuleType("hama"), types.ModuleType("resemblyzer")
    hama.ASRModel, hama.G2PModel = FakeRecogniser, FakeG2P  # type: ignore[attr-defined]
    resemblyzer.VoiceEncoder = FakeEncoder  # type: ignore[attr-defined]
    resemblyzer.preprocess_wav = lambda samples: samples  # type: ignore[attr-defined]
    distillmos = types.ModuleType("distillmos")
    distillmos.ConvTransformerSQAModel = FakeOpinion  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchaudio", types.ModuleType("torchaudio"))
    monkeypatch.setitem(sys.modules, "distillmos", distillmos)
    monkeypatch.setitem(sys.modules, "hama", hama)
    monkeypatch.setitem(sys.modules, "resemblyzer", resemblyzer)
