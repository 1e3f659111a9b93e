"""The commands, run as a person runs them, against the reference systems on files that those wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import ClvpFeatureExtractor, ClvpTokenizer

from . import builders, environment
from .live import SEED, random_config
from .test_sounds import RATE, wave

TEXT = "Hello world, this is number 42."


def clvp(*words: object, given: str = "") -> list[dict[str, Any]]:
    """Run the program; its JSONL records. Fails with its stderr."""
    run = subprocess.run(
        [sys.executable, "-m", "clvp_cli", *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        env=os.environ | {"CLVP_DEVICE": "cpu"},
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return [json.loads(line) for line in run.stdout.splitlines()]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A reference model with its processor in one directory, a voice, and what the reference makes of them."""
    import soundfile

    directory = tmp_path_factory.mktemp("commands")
    config = random_config(SEED)
    config.text_config.vocab_size, config.text_config.bos_token_id = 256, 255
    config.decoder_config.max_text_tokens = 60
    config.decoder_config.max_position_embeddings = 90
    config.text_config.summary_type = config.speech_config.summary_type = "mean"
    model = builders.clvp_model(config, SEED)
    with torch.no_grad():
        model.speech_decoder_model.lm_head.bias[config.decoder_config.bos_token_id] = -60.0
    model.save_pretrained(directory / "model")
    tables = environment.write_published_vocabulary(directory / "tables")
    tokenizer = ClvpTokenizer(str(tables / "vocab.json"), str(tables / "merges.txt"))
    extractor = ClvpFeatureExtractor(mel_norms=(1.0 + np.arange(80) / 80).tolist())
    for part in (tokenizer, extractor):
        part.save_pretrained(directory / "model")
    sound = wave(SEED, 100000)
    soundfile.write(directory / "voice.wav", sound, RATE, subtype="FLOAT")
    return {
        "directory": directory,
        "model": model,
        "path": directory / "model",
        "voice": directory / "voice.wav",
        "ids": tokenizer(TEXT, return_tensors="pt")["input_ids"],
        "features": extractor(sound, sampling_rate=RATE, return_tensors="pt")["input_features"],
        "tokenizer": tokenizer,
    }


def test_tokenize(files: dict[str, Any]) -> None:
    """`clvp tokenize --normalizer hf` prints the ids of ClvpTokenizer."""
    texts = [TEXT, " leading blank", "The 3rd of May, $5.50!"]
    records = clvp("tokenize", "--normalizer", "hf", *texts)
    assert [record["ids"] for record in records] == [files["tokenizer"](text)["input_ids"] for text in texts]


def test_extract_mels(files: dict[str, Any], tmp_path: Path) -> None:
    """`clvp extract-mels` writes the input_features of ClvpFeatureExtractor with the published norms."""
    norms = torch.load(environment.site_packages() / "tortoise" / "data" / "mel_norms.pth", weights_only=True)
    expected = ClvpFeatureExtractor(mel_norms=norms.tolist())(
        wave(SEED, 100000), sampling_rate=RATE, return_tensors="np"
    )
    clvp("extract-mels", files["voice"], "-o", tmp_path / "mel.npy")
    np.testing.assert_allclose(np.load(tmp_path / "mel.npy"), expected["input_features"][0], atol=1e-4)


def test_generate_and_score(files: dict[str, Any], tmp_path: Path) -> None:
    """Greedy codes and their score under the hf profile are those of ClvpModelForConditionalGeneration.generate."""
    common = ("-m", files["path"], "-c", "hf", "-t", TEXT)
    out = tmp_path / "candidates.jsonl"
    clvp(
        *("generate-candidates", *common, "-r", files["voice"], "-n", 1, "--greedy"),
        *("--min-codes", 3, "--max-codes", 30, "-o", out),
    )
    (record,) = [json.loads(line) for line in out.read_text().splitlines()]
    with torch.no_grad():
        reference = files["model"].generate(
            input_ids=files["ids"],
            input_features=files["features"],
            do_sample=False,
            max_new_tokens=30,
            min_new_tokens=3,
            return_dict_in_generate=True,
        )
        ids = torch.nn.functional.pad(files["ids"], (0, 1))
        sequences = files["model"].speech_decoder_model.generate(
            conditioning_embeds=files["model"].conditioning_encoder(
                input_features=files["features"], input_ids=ids
            ),
            do_sample=False,
            max_new_tokens=30,
            min_new_tokens=3,
        )  # fmt: skip
    stop = files["model"].config.decoder_config.eos_token_id
    assert record["codes"] == [code for code in sequences[0, 1:].tolist() if code != stop]
    assert record["stopped"] == (stop in sequences[0].tolist())
    (scored,) = clvp("score", out, *common)
    assert scored["signals"]["clvp"] == pytest.approx(float(reference.logits_per_text[0, 0]), abs=2e-3)
    scale = float(files["model"].logit_scale.exp())
    assert scored["cosine"] == pytest.approx(float(reference.logits_per_text[0, 0]) / scale, abs=1e-3)


def test_score_many(files: dict[str, Any], tmp_path: Path) -> None:
    """`clvp score` gives each of many candidates the score transformers gives it alone, best first."""
    model, rng = files["model"], np.random.RandomState(SEED)
    stop, vocab = model.config.decoder_config.eos_token_id, model.config.speech_config.vocab_size
    rows = [rng.randint(0, vocab, length) for length in (4, 9, 9, 17, 30)]
    padded = np.full((5, 31), stop)
    for row, codes in zip(padded, rows, strict=True):
        row[: len(codes)] = codes
    np.save(tmp_path / "codes.npy", padded)
    records = clvp("score", tmp_path / "codes.npy", "-m", files["path"], "-t", TEXT, "--normalizer", "hf")
    expected = []
    for codes in rows:
        fixed = model.fix_speech_decoder_output(torch.tensor([[0, *codes, stop]]))
        with torch.no_grad():
            text = model.get_text_features(torch.nn.functional.pad(files["ids"], (0, 1)))
            cosine = torch.nn.functional.cosine_similarity(text, model.get_speech_features(speech_ids=fixed))
        expected.append(float(cosine * model.logit_scale.detach().exp()))
    assert [record["index"] for record in records] == sorted(range(5), key=lambda i: -expected[i])
    for record in records:
        assert record["signals"]["clvp"] == pytest.approx(expected[record["index"]], abs=2e-3)


def test_voice(files: dict[str, Any], tmp_path: Path) -> None:
    """`clvp voice` under the hf profile saves transformers' mel vector, and it speaks as the clip does."""
    common = ("-m", files["path"], "-c", "hf")
    clvp("voice", files["voice"], *common, "-o", tmp_path / "voice.npz")
    with torch.no_grad():
        prefix = files["model"].conditioning_encoder(input_features=files["features"], input_ids=files["ids"])
    with np.load(tmp_path / "voice.npz") as saved:
        arrays = [saved[name] for name in saved.files if saved[name].shape[-1:] == prefix.shape[-1:]]
    np.testing.assert_allclose(arrays[0].reshape(-1), prefix[0, 0].numpy(), atol=1e-3, rtol=1e-3)
