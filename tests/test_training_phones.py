"""Phones: reading them, laying them along a clip, finding a code's place in its text, and what is learned from that."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from clvp_cli.errors import ConfigError, InputError
from clvp_cli.text.tokenizer import load_tokenizer
from clvp_cli.training.losses import IGNORED
from clvp_cli.training.phones import ALPHABET, CLASSES, NUMBERS, classes_of, lay, read_phones, text_places, word_spans
from clvp_cli.training.recogniser import padded, slot_loss, stretched
from clvp_cli.training.train import train
from tests.training_runs import read_log, write_config, write_corpus


def heard(classes: list[int], sure: float = 0.9) -> np.ndarray:
    """Log-probabilities (T, C) that favour one class in each slot."""
    rows = np.full((len(classes), CLASSES), (1 - sure) / (CLASSES - 1))
    rows[np.arange(len(classes)), classes] = sure
    return np.log(rows).astype(np.float32)


def test_phones_are_read_word_by_word() -> None:
    """Stress and punctuation are no phones; reduced vowels and the flap are those they sound like."""
    assert read_phones("həlˈO, wˌɜɹld!") == (
        tuple(NUMBERS[p] for p in "həlO"),
        tuple(NUMBERS[p] for p in "wɜɹld"),
    )
    assert read_phones("ᵊ T") == ((NUMBERS["ə"],), (NUMBERS["d"],))
    assert read_phones(" ‖ , ") == ()
    assert len(set(ALPHABET)) == len(ALPHABET) == CLASSES - 1


def test_a_phone_is_as_wide_as_its_neighbours_allow() -> None:
    """Slots between two phones go to the nearer one, quiet ones and far ones to silence."""
    loud = np.zeros((80, 24), np.float32)
    loud[:, :4] = -11.0  # the first two slots are quiet
    found = lay(heard([0, 0, 0, 5, 0, 0, 7, 0, 0, 0, 0, 0]), [5, 7], loud)
    assert found is not None
    assert found.tolist() == [-1, -1, 0, 0, 0, 1, 1, 1, 1, 1, 1, -1]
    assert classes_of(found, ((5,), (7,))).tolist() == [0, 0, 5, 5, 5, 7, 7, 7, 7, 7, 7, 0]
    assert lay(heard([0]), [5, 7], loud[:, :2]) is None


def test_a_code_is_where_its_phone_is_written() -> None:
    """Word by word where the text has as many words as were spoken, else over the whole text; never falling."""
    ids = load_tokenizer(None).encode("sat on, a")
    spans = word_spans(ids)
    assert len(spans) == 3
    assert spans[0][0] == 0 and spans[2][1] == len(ids)
    words = read_phones("sæt ɑn ə")
    places = np.array([-1, 0, 1, 2, 2, 3, 4, 4, 5, 5], np.int16)
    for shown in (words, (tuple(p for word in words for p in word),)):
        where = text_places(places, shown, spans, 5)
        assert where.shape == (5,)
        assert (np.diff(where) >= 0).all()
    where = text_places(places, words, spans, 5)
    assert where[0] < spans[0][1]
    assert spans[2][0] - 1 < where[4] < spans[2][1]


def test_labels_follow_the_tempo_and_unknown_ones_cost_nothing() -> None:
    """Half as fast says everything twice; a batch without labels has a loss of 0 that still has a gradient."""
    assert stretched(np.array([1, 2, 3]), 6, 12).tolist() == [1, 1, 2, 2, 3, 3]
    log_probs = torch.zeros(2, 4, CLASSES, requires_grad=True)
    nothing = slot_loss(log_probs.log_softmax(-1), padded([None, None], 4))
    nothing.backward()
    assert float(nothing.detach()) == 0.0
    some = slot_loss(log_probs.log_softmax(-1), padded([None, np.array([3, IGNORED, 1])], 4), consonants=1.0)
    assert float(some.detach()) == pytest.approx(np.log(CLASSES))


def test_what_the_recogniser_learns_teaches_the_others(tmp_path: Path) -> None:
    """phones → phones slot by slot → codec → decoder: the losses of each fall, and no model carries the recogniser."""
    manifest = write_corpus(tmp_path / "data", audio=True)
    quick = {"loop": {"steps": 60, "batch_frames": 800}, "optim": {"learning_rate": 1e-2, "warmup": 3}}
    first = train("phones", write_config(tmp_path / "a.yaml", manifest, **quick), tmp_path / "a")["model"]
    laid = {"data": {"phones": first}}
    second = train(
        "phones", write_config(tmp_path / "b.yaml", manifest, **quick, **laid), tmp_path / "b", model=Path(first)
    )["model"]
    config = write_config(
        tmp_path / "c.yaml",
        manifest,
        **quick,
        **laid,
        codec={"phones": 1.0, "listen": 0.5, "consonants": 0.5, "continuous_steps": 10},
    )
    codec = train("codec", config, tmp_path / "c")["model"]
    decoder = {"phones": 0.5, "guide": 1.0, "guide_first": 0, "guide_layers": 1, "guide_heads": 1}
    config = write_config(tmp_path / "d.yaml", manifest, **{**quick, "optim": {"muon": True}}, **laid, decoder=decoder)
    whole = Path(train("decoder", config, tmp_path / "d", model=Path(codec))["model"])
    for run, figure in (("a", "loss"), ("b", "loss"), ("c", "phones"), ("d", "phones"), ("d", "guide")):
        values = [row[figure] for row in read_log(tmp_path / run) if figure in row]
        assert np.mean(values[-5:]) < np.mean(values[:5]), (run, figure)
    assert (Path(second) / "phones" / "model.safetensors").is_file()
    assert (whole / "codec").is_dir() and not (whole / "phones").exists()


def test_what_lacks_a_recogniser_says_so(tmp_path: Path) -> None:
    """Phones asked for without data.phones, a directory without a recogniser, a manifest without phones."""
    manifest = write_corpus(tmp_path / "data", audio=True)
    config = write_config(tmp_path / "a.yaml", manifest, codec={"phones": 1.0})
    with pytest.raises(ConfigError, match="need data"):
        train("codec", config, tmp_path / "a")
    config = write_config(tmp_path / "b.yaml", manifest, data={"phones": str(tmp_path)})
    with pytest.raises(ConfigError, match="no recogniser of phones"):
        train("codec", config, tmp_path / "b")
    codes = write_corpus(tmp_path / "codes")
    with pytest.raises(ConfigError, match=r"decoder\.phones needs"):
        train("decoder", write_config(tmp_path / "e.yaml", codes, decoder={"phones": 1.0}), tmp_path / "e")
    with pytest.raises(InputError, match="no clip with audio and phones"):
        train("phones", write_config(tmp_path / "c.yaml", codes), tmp_path / "c")
