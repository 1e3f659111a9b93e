"""What picking the best of N is worth, and whose voice is heard: candidates made once, kept, judged from outside.

Owns the frozen pools of candidates, the picks and their comparison. Sentences and reference voices are of sets that
nothing was trained on. Source of the measures: recovery and oracle as in the literature on best-of-N speech.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..ranking import combine
from ..records import Candidate, finite
from .figures import Figure
from .intelligibility import decoded_rate
from .material import Clip, Material, drawn
from .statistics import bootstrap, expected_pick, holm, paired_permutation, wilson

SENTENCES = 40
WORDS = range(4, 16)  # short sentences: what a small decoder is for
OVERRUN = 2.0  # times the expected length

Floats = NDArray[np.float64]


@dataclass(eq=False)
class Pool:
    """The candidates of one sentence in one voice, with what the model and the recogniser say of them."""

    clip: Clip  # the sentence, with a recording of it by its own speaker
    voice: Clip
    candidates: list[Candidate]
    scores: dict[str, Floats]  # "ranking" and every signal → (N,)
    expected: float  # codes that the sentence should take
    rates: Floats = field(default_factory=lambda: np.zeros(0))  # phoneme error rates (N,), where they were measured
    own_rate: float = float("nan")  # of the recording after the codec

    def best(self, by: str = "ranking") -> int:
        """The place of the pick."""
        return int(np.argmax(self.scores[by]))

    def records(self) -> Iterator[dict[str, object]]:
        """One record a candidate: what a later analysis needs, codes included."""
        for place, candidate in enumerate(self.candidates):
            signals = {name: finite(float(values[place])) for name, values in self.scores.items()}
            rate = finite(float(self.rates[place])) if len(self.rates) else None
            yield {
                **candidate.record(),
                "text": self.clip.text,
                "voice": self.voice.path.name,
                "expected": round(self.expected, 1),
                "signals": signals,
                "per": rate,
            }


def characters_a_code(clips: Sequence[Clip], codes_a_second: float) -> float:
    """The median rate of the judging clips' speech."""
    return float(np.median([len(clip.text) / clip.seconds for clip in clips])) / codes_a_second


def sentences(material: Material, limit: int = 0) -> list[Clip]:
    """Short sentences of the judging sets, as many of each set as there is room for; InputError where none is short."""
    wanted = min(limit or SENTENCES, SENTENCES)
    short = {name: [c for c in clips if len(c.text.split()) in WORDS] for name, clips in material.sets.items()}
    found: list[Clip] = []
    left = wanted
    for place, clips in enumerate(sorted(short.values(), key=len)):  # what a small set lacks, larger ones give
        share = -(-left // (len(short) - place))
        found += drawn(clips, min(share, len(clips)), material.seed) if clips and share else []
        left = wanted - len(found)
    if not found:
        raise InputError("no clip for judging has a text of 4 to 15 words", "best-of-n needs short sentences")
    return found


def voices(material: Material, count: int) -> list[Clip]:
    """Reference clips: speakers by turns, another clip of theirs each time, 3 to 12 s long where there are such."""
    of_speaker: dict[tuple[str, str], list[Clip]] = {}
    for clip in material.clips:
        of_speaker.setdefault((clip.set, clip.speaker), []).append(clip)
    rng = material.rng("voices")
    queues = []
    for clips in of_speaker.values():
        fitting = [c for c in clips if 3 <= c.seconds <= 12] or clips
        queues.append([fitting[i] for i in rng.permutation(len(fitting))])
    return [queues[i % len(queues)][(i // len(queues)) % len(queues[i % len(queues)])] for i in range(count)]


def make_pools(material: Material, limit: int = 0) -> list[Pool]:
    """N candidates (the settings' n) of every sentence, each in its voice, scored."""
    clvp, clips = material.clvp, sentences(material, limit)
    config = clvp.core.mel_config
    rate = config.sampling_rate / (config.hop_length * clvp.core.codec.config.stride)
    pace = characters_a_code(material.clips, rate)
    weights = clvp.core.rank_weights
    pools = []
    for clip, voice in zip(clips, voices(material, len(clips)), strict=True):
        made = [candidate for _, candidate in clvp.candidates([clip.text], clvp.voice([voice.path]))]
        made.sort(key=lambda candidate: candidate.index)
        scored = clvp.score(clip.text, made)
        scores = {"ranking": np.array([combine(one, weights) for one in scored])}
        scores |= {name: np.array([one.signals[name] for one in scored]) for name in scored[0].signals}
        pools.append(Pool(clip, voice, made, scores, len(clip.text) / pace))
    return pools


def stopping(pools: Sequence[Pool], seed: int) -> Iterator[Figure]:
    """The share of candidates that stop by themselves within twice the expected length; sentences are resampled."""
    shares = np.array([[c.stopped and c.length <= OVERRUN * p.expected for c in p.candidates] for p in pools]).mean(-1)
    count = sum(len(p.candidates) for p in pools)
    share = float(shares.mean())
    spread = 0.0 < share < 1.0
    low, high = bootstrap(shares, seed=seed) if spread else wilson(share * len(shares), len(shares))
    yield Figure("decoder.stopped", share, len(pools), low, high, more={"candidates": count})
    lengths = np.array([np.mean([c.length for c in p.candidates]) / p.expected for p in pools])
    low, high = bootstrap(lengths, seed=seed)
    yield Figure("decoder.length_over_expected", float(lengths.mean()), len(pools), low, high)


def measure(material: Material, pools: Sequence[Pool]) -> None:
    """Speak every candidate and note its phoneme error rate, and that of the sentence's own recording decoded."""
    for pool in pools:
        rates = []
        for candidate in pool.candidates:
            samples, rate = material.clvp.speak(candidate, pool.voice.path)
            rates.append(material.error_rate(samples, rate, pool.clip.text))
        pool.rates = np.array(rates)
        pool.own_rate = decoded_rate(material, pool.clip, material.reference(pool.clip, "codec"))


def best_of_n(pools: Sequence[Pool], seed: int) -> Iterator[Figure]:
    """Error rates of a random candidate, of each signal's pick and of the oracle's; what is recovered; against N."""
    n = len(pools[0].candidates)
    choices = {"oracle": [-p.rates for p in pools]}
    choices |= {by: [p.scores[by] for p in pools] for by in pools[0].scores}
    single = np.array([p.rates.mean() for p in pools])  # what a random pick is worth, without its luck
    own = np.array([p.own_rate for p in pools])
    picked = {
        by: np.array([expected_pick(p.rates, s, n) for p, s in zip(pools, scores, strict=True)])
        for by, scores in choices.items()
    }
    yield _mean("best-of-n.per", "random", single, seed)
    yield _mean("best-of-n.per", "codec", own, seed)
    for by, values in picked.items():
        yield _mean("best-of-n.per", by, values, seed)
    yield _mean("best-of-n.oracle_over_codec", "oracle", picked["oracle"] - own, seed)
    signals = [by for by in picked if by != "oracle"]
    same = [by for by in signals if by != "ranking" and np.array_equal(picked[by], picked["ranking"])]
    tests = {by: paired_permutation(picked[by] - single, seed=seed) for by in signals if by not in same}
    corrected = holm(tests)
    for by in same:  # the ranking is this signal alone: one test, not two
        tests[by], corrected[by] = tests["ranking"], corrected["ranking"]
    for by in signals:
        yield _mean("best-of-n.gain", by, single - picked[by], seed, p=tests[by], holm=round(corrected[by], 5))
        lower = corrected[by] if single.mean() > picked[by].mean() else 1.0
        yield Figure("best-of-n.p", lower, len(pools), by=by, more={"test": "paired permutation, two-sided, Holm"})
        yield _recovery(by, single, picked[by], picked["oracle"], seed)
    for count in (k for k in (1, 2, 4, 8, 16, 32, 64) if k <= n):
        for by, scores in choices.items():
            rates = np.array([expected_pick(p.rates, s, count) for p, s in zip(pools, scores, strict=True)])
            yield _mean(f"best-of-n.per_at_{count}", by, rates, seed)


def _mean(name: str, by: str, values: Floats, seed: int, p: float | None = None, **more: float) -> Figure:
    low, high = bootstrap(values, seed=seed)
    return Figure(name, float(values.mean()), len(values), low, high, by=by, p=p, more=more)


def _recovery(by: str, single: Floats, picked: Floats, oracle: Floats, seed: int) -> Figure:
    """(single − selected) / (single − oracle), of means over sentences."""
    columns = np.stack([single - picked, single - oracle], axis=-1)

    def ratio(means: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            found: Floats = means[..., 0] / means[..., 1]
        return found

    low, high = bootstrap(columns, ratio, seed=seed)
    return Figure("best-of-n.recovery", float(ratio(columns.mean(0))), len(single), low, high, by=by)
