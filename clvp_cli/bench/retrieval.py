"""The right clip among 16 for a text, and the right text for a clip: random others, and others of like length.

Owns the score of every text with every clip in few passes, and the pools. Knows nothing of sound or files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..model.clvp import unit
from ..pipeline import Clvp
from ..records import Candidate
from ..signals.alignment import AlignmentSignal
from ..signals.clvp import ClvpSignal
from .figures import Figure
from .material import Clip, Material
from .statistics import wilson

POOL = 16
DRAWS = 16  # random pools for each text: their mean is what a clip counts for
TEXTS_AT_ONCE = 64

Matrix = NDArray[np.float64]  # (texts, clips)
Pools = NDArray[np.int64]  # (texts, draws, others)


def score_matrix(clvp: Clvp, texts: Sequence[str], candidates: Sequence[Candidate]) -> dict[str, Matrix]:
    """Every signal, and "ranking", what the order follows, of every candidate with every text: (texts, candidates).

    The same numbers as `clvp.score` gives text by text, from one pass over the candidates and one over the texts.
    """
    core = clvp.core
    ids = [clvp.ids(text) for text in texts]
    made = {signal.name: np.zeros((len(texts), len(candidates))) for signal in core.signals}
    with torch.inference_mode():
        vectors = torch.stack([core.clvp.text_vector(row) for row in ids])
        for heard in core.reader.read(candidates):
            for signal in core.signals:
                if isinstance(signal, ClvpSignal):
                    speech = unit(signal.speech.projection(signal.speech.summarise(heard.hidden)))
                    values = (vectors @ speech.t()).double().cpu().numpy() * signal.scale
                elif isinstance(signal, AlignmentSignal):
                    values = _aligned(signal, ids, heard.hidden)
                else:
                    values = np.stack([signal.judge(row, heard) for row in ids])
                made[signal.name][:, heard.members] = values
    ranking = sum(weight * made[name] for name, weight in core.rank_weights.items())
    return {"ranking": np.asarray(ranking), **made}


def _aligned(signal: AlignmentSignal, ids: Sequence[NDArray[np.int64]], hidden: torch.Tensor) -> Matrix:
    """The head runs once over n candidates of one length; their log-probabilities meet every text. (texts, n)"""
    log_probs = signal.head(hidden.float())
    values = np.zeros((len(ids), len(log_probs)))
    for column, one in enumerate(log_probs):
        for start in range(0, len(ids), TEXTS_AT_ONCE):
            some = [row.tolist() for row in ids[start : start + TEXTS_AT_ONCE]]
            lengths = torch.full((len(some),), len(one))
            repeated = one.unsqueeze(0).expand(len(some), -1, -1).contiguous()
            values[start : start + len(some), column] = (
                signal.head.score(repeated, lengths, some).double().cpu().numpy()
            )
    return values


def random_pools(clips: Sequence[Clip], rng: np.random.Generator) -> Pools:
    """For each clip DRAWS times 15 others of another text, or as many as there are: (n, draws, others)."""
    most = min(POOL - 1, min(len(_others(clips, i)) for i in range(len(clips))))
    draws = [[rng.permutation(_others(clips, i))[:most] for _ in range(DRAWS)] for i in range(len(clips))]
    return np.asarray(draws, dtype=np.int64).reshape(len(clips), DRAWS, most)


def matched_pools(clips: Sequence[Clip]) -> Pools:
    """For each clip the 15 others of another text that are nearest in length: (n, 1, others)."""
    most = min(POOL - 1, min(len(_others(clips, i)) for i in range(len(clips))))
    pools = []
    for place, clip in enumerate(clips):
        others = _others(clips, place)
        pools.append(sorted(others, key=lambda o: abs(clips[o].seconds - clip.seconds))[:most])
    return np.asarray(pools, dtype=np.int64).reshape(len(clips), 1, most)


def _others(clips: Sequence[Clip], place: int) -> list[int]:
    said = clips[place].text.lower()
    return [i for i, other in enumerate(clips) if i != place and other.text.lower() != said]


def hits(matrix: Matrix, pools: Pools) -> NDArray[np.float64]:
    """How often the right one is above every other of its pool, for each row: (n,) shares. A tie is a miss."""
    rows = np.arange(len(matrix))
    right = matrix[rows, rows][:, None, None]
    above = right > matrix[rows[:, None, None], pools]
    found: NDArray[np.float64] = above.all(-1).mean(-1)
    return found


def retrieval(material: Material) -> Iterator[Figure]:
    """Figures for each set (others are of the same set) and over all clips."""
    found: dict[tuple[str, str], dict[str, NDArray[np.float64]]] = {}
    sizes: dict[str, int] = {}
    for name, clips in material.sets.items():
        if len({clip.text.lower() for clip in clips}) < 2:
            continue
        candidates = [material.candidate(clip) for clip in clips]
        matrices = score_matrix(material.clvp, [clip.text for clip in clips], candidates)
        pools = {"random": random_pools(clips, material.rng("retrieval", name)), "matched": matched_pools(clips)}
        for by, matrix in matrices.items():
            for kind, pool in pools.items():
                sizes[name] = pool.shape[-1] + 1
                found.setdefault((f"retrieval.{kind}", by), {})[name] = hits(matrix, pool)
                found.setdefault((f"retrieval.text_{kind}", by), {})[name] = hits(matrix.T, pool)
    for (figure, by), shares in found.items():
        for name, values in [*shares.items(), ("all", np.concatenate(list(shares.values())))]:
            low, high = wilson(float(values.sum()), len(values))
            more = {"of": sizes.get(name, min(sizes.values()))}
            yield Figure(figure, float(values.mean()), len(values), low, high, name, by, more=more)
