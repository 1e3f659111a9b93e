"""The embedded model: that it is there whole, small, and tells the right text of its bundled voice from others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_cli.audio.mel import log_mel
from clvp_cli.audio.waveform import read_audio
from clvp_cli.core import Core
from clvp_cli.locate import ASSETS
from clvp_cli.records import Candidate
from clvp_cli.settings import Settings
from clvp_cli.signals import judge

SAID = "unless to be rather cold hearted and rather selfish is to be ill disposed"
OTHERS = [
    "the ship had sailed before any of us came down to the harbour that morning",
    "we shall ask the committee to consider the matter again when it meets in june",
    "a small brown dog was sleeping under the table beside the kitchen window",
    "nothing in the letter told them where the money had gone or who had taken it",
    "unless to be rather cold hearted and rather kind is to be well remembered",
]


@pytest.fixture(scope="module")
def core() -> Core:
    return Core(ASSETS / "mini", Settings())


@pytest.fixture(scope="module")
def clip(core: Core) -> Candidate:
    samples = read_audio(ASSETS / "voice.flac").samples
    mel = torch.from_numpy(log_mel(samples, mel_norms=core.mel_norms))
    with torch.inference_mode():
        codes = core.codec.encode(mel[None])[0].numpy()
    return Candidate(codes=codes, stopped=True)


def test_the_embedded_weights_are_whole_and_small() -> None:
    """Every part is there, and all of it is at most 25 MB on disk."""
    core = Core(ASSETS / "mini", Settings())
    assert core.checkpoint.parts == ("conditioning", "decoder", "text", "speech")
    assert set(core.checkpoint.extras) >= {"codec", "alignment"}
    assert sum(file.stat().st_size for file in Path(ASSETS / "mini").rglob("*") if file.is_file()) <= 25_000_000


def test_the_right_text_of_the_bundled_voice_is_ranked_first(core: Core, clip: Candidate) -> None:
    """By what mini ranks by, among texts of like length, one of them nearly right."""
    scores = []
    for text in [SAID, *OTHERS]:
        values = judge(core.signals, core.reader, core.tokenizer.encode_for_speech(text), [clip])
        scores.append(sum(weight * values[name][0] for name, weight in core.rank_weights.items()))
    assert int(np.argmax(scores)) == 0


def test_what_the_codec_decodes_is_near_what_it_heard(core: Core, clip: Candidate) -> None:
    """The mel of the decoded codes follows the clip's: a correlation no other clip's mel would have."""
    samples = read_audio(ASSETS / "voice.flac").samples
    heard = torch.from_numpy(log_mel(samples, mel_norms=core.mel_norms))
    with torch.inference_mode():
        made = core.codec.decode(torch.from_numpy(clip.codes)[None], heard[None])[0, :, : heard.shape[1]]
    plain, again = ((mel * torch.from_numpy(core.mel_norms.copy())[:, None]).flatten() for mel in (heard, made))
    assert float(torch.corrcoef(torch.stack([plain, again]))[0, 1]) > 0.8
