"""Retrieval: scores of every pair are those of `clvp score`, pools are what they say, hits are counted strictly."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from bench_data import SAID, judging_data

from clvp_cli.bench.material import Clip, Material, read_clips
from clvp_cli.bench.retrieval import hits, matched_pools, random_pools, retrieval, score_matrix
from clvp_cli.pipeline import Clvp


@pytest.fixture(scope="module")
def model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with an alignment head of random weights too."""
    import torch
    from safetensors.torch import save_file

    from clvp_cli.checkpoints.save import json_text
    from clvp_cli.model.alignment import AlignmentConfig, AlignmentHead

    path = tmp_path_factory.mktemp("bench") / "tiny"
    shutil.copytree(tiny_model, path)
    config = AlignmentConfig(input_size=64, hidden_size=16)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        head = AlignmentHead(config)
    (path / "alignment").mkdir()
    (path / "alignment" / "config.json").write_text(json_text(config.to_dict()), encoding="utf-8")
    save_file(head.state_dict(), path / "alignment" / "model.safetensors")
    return path


@pytest.fixture(scope="module")
def material(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Material:
    """Nine clips and a model."""
    data = judging_data(tmp_path_factory.mktemp("data"))
    return Material(Clvp.load(model), read_clips(data), seed=2)


def clips_of(seconds: list[float], texts: list[str] | None = None) -> list[Clip]:
    """Clips that need no file."""
    return [
        Clip(Path(f"{i}.wav"), "dev/x", "me", length, texts[i] if texts else f"text {i}")
        for i, length in enumerate(seconds)
    ]


def test_the_matrix_holds_the_scores_of_each_pair(material: Material) -> None:
    """Every entry is what `score` says of that text and candidate, for every signal and for the ranking."""
    candidates = [material.candidate(clip) for clip in material.clips]
    matrices = score_matrix(material.clvp, SAID, candidates)
    assert set(matrices) == {"ranking", "clvp", "alignment"}
    for row, text in enumerate(SAID):
        for column, scored in enumerate(material.clvp.score(text, candidates)):
            for name, value in scored.signals.items():
                assert matrices[name][row, column] == pytest.approx(value, abs=2e-5)
    np.testing.assert_array_equal(matrices["ranking"], matrices["clvp"])


def test_random_pools_leave_out_the_clip_and_its_text() -> None:
    """15 different others, none of the same text; fewer where there are fewer."""
    clips = clips_of([1.0] * 20, ["same", "Same"] + [f"text {i}" for i in range(18)])
    pools = random_pools(clips, np.random.default_rng(1))
    assert pools.shape == (20, 16, 15)
    assert not set(pools[0].ravel()) & {0, 1}
    assert all(len(set(pool)) == 15 and place not in pool for place, own in enumerate(pools) for pool in own)
    assert random_pools(clips[1:5], np.random.default_rng(1)).shape == (4, 16, 3)


def test_matched_pools_are_the_nearest_in_length() -> None:
    """The 15 others of the nearest duration."""
    pools = matched_pools(clips_of([float(i) for i in range(40)]))
    assert pools.shape == (40, 1, 15)
    assert set(pools[0, 0]) == set(range(1, 16)) and {19, 21, 13, 27} <= set(pools[20, 0])


def test_a_tie_is_a_miss() -> None:
    """The right one counts only above every other of its pool."""
    matrix = np.array([[3.0, 1.0, 2.0], [5.0, 5.0, 1.0], [0.0, 2.0, 1.0]])
    pools = np.array([[[1, 2], [2, 1]], [[0, 2], [2, 2]], [[0, 0], [0, 1]]])
    assert hits(matrix, pools).tolist() == [1.0, 0.5, 0.5]


def test_figures_cover_every_set_signal_and_direction(material: Material) -> None:
    """Two kinds of others, text to clip and clip to text, each set and all, with n, an interval and what is asked."""
    figures = list(retrieval(material))
    assert len(figures) == 4 * 3 * 3
    assert all(f.low is not None and f.high is not None and f.low <= f.value <= f.high for f in figures)
    whole = next(f for f in figures if (f.figure, f.set, f.by) == ("retrieval.matched", "all", "ranking"))
    assert whole.n == 9 and whole.more["of"] == 3 and whole.due is not None and whole.due.floor == 0.90
    assert whole.record()["met"] in ("goal", "floor", "below")
    assert [f.record() for f in retrieval(material)] == [f.record() for f in figures]
