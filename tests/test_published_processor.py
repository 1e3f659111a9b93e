"""ClvpProcessor: audio, text, or both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_cli import ClvpFeatureExtractor, ClvpProcessor, ClvpTokenizer
from clvp_cli.errors import ConfigError, InputError

SOUND = np.sin(np.arange(22050) / 20).astype(np.float32)
HELLO = [62, 84, 28, 2, 179, 79]


@pytest.fixture
def processor() -> ClvpProcessor:
    return ClvpProcessor(ClvpFeatureExtractor(), ClvpTokenizer())


def test_both(processor: ClvpProcessor) -> None:
    """With audio and text the mask is the text's; the audio alone has its own, per sample."""
    both = processor(raw_speech=SOUND, sampling_rate=22050, text="Hello world", return_tensors="pt")
    assert both["input_ids"].tolist() == [HELLO] and both["attention_mask"].tolist() == [[1] * 6]
    assert both.input_features.shape == (1, 80, 517) and both.input_features.dtype == torch.float32
    assert set(both) == set(processor.model_input_names)
    alone = processor(SOUND, 22050, return_tensors="np")
    assert alone["attention_mask"].shape == (1, 132300) and "input_ids" not in alone


def test_text(processor: ClvpProcessor) -> None:
    """Text alone is the tokenizer's, padded on request, and decodes again."""
    assert processor(text="Hello world")["input_ids"] == HELLO
    rows = processor(text=["Hello world", "Hello"], padding=True, return_tensors="pt")
    assert rows["attention_mask"].sum(1).tolist() == [6, 3]
    assert processor.decode(HELLO) == "hello world"
    assert processor.batch_decode([HELLO, HELLO[:3]]) == ["hello world", "hello"]


def test_files(processor: ClvpProcessor, tmp_path: Path) -> None:
    """Both parts save into a directory and load from it; a directory without their files gets the published ones."""
    processor.feature_extractor.default_audio_length = 2
    processor.save_pretrained(tmp_path / "made")
    again = ClvpProcessor.from_pretrained(tmp_path / "made", add_prefix_space=True)
    assert again.feature_extractor.default_audio_length == 2 and again.tokenizer.add_prefix_space
    (tmp_path / "bare").mkdir()
    bare = ClvpProcessor.from_pretrained(tmp_path / "bare")
    assert len(bare.feature_extractor.mel_norms) == 80 and bare(text="Hello world")["input_ids"] == HELLO


def test_refusals(processor: ClvpProcessor) -> None:
    """Neither audio nor text, and parts of another kind, are errors."""
    with pytest.raises(InputError, match="raw_speech, text or both"):
        processor()
    with pytest.raises(ConfigError, match="takes a ClvpFeatureExtractor, not a ClvpTokenizer"):
        ClvpProcessor(processor.tokenizer, processor.feature_extractor)
