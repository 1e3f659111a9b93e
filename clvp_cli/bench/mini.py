"""The evaluation of a small model: every figure of the model card from held-out speech, `clvp bench mini`.

Owns which parts there are, their order and what each needs. Each part lives in a file of its own: retrieval, damage,
intelligibility (the codec, opinion), best_of_n (decoder and ranking), likeness (the voice). What judges comes from
outside the family (evaluators.py); retrieval, damage and codebook use need no evaluator.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from ..errors import ClvpError, UsageError
from ..pipeline import Clvp
from .best_of_n import Pool, best_of_n, make_pools, measure, stopping, voices
from .damage import damage
from .evaluators import is_there
from .figures import Figure
from .intelligibility import codebook, codec, opinion
from .likeness import likeness
from .material import Material, log, read_clips
from .retrieval import retrieval

# Parts, the cheap ones first, with the evaluator that each needs.
PARTS = {
    "retrieval": None,
    "damage": None,
    "codec": "hama",
    "best-of-n": "hama",
    "voice": "resemblyzer",
    "opinion": "distillmos",
    "time": None,
}
EXTRA = "pip install 'clvp[bench]'"
WITHOUT = {"distillmos": "pip install --no-deps distillmos xls-r-sqa"}  # what it asks for besides is not used here
SENTENCE = "The old sailor looked across the quiet harbour."  # 8 words
RUNS = 3

Keep = Callable[[dict[str, object]], object]


def chosen_parts(only: str | None) -> dict[str, bool]:
    """The parts asked for, each with whether its evaluator is there: all, or those named and separated by commas.

    Raises:
        UsageError: a part of no known name, or one that was named and whose evaluator is not installed.
    """
    names = [name.strip() for name in only.split(",")] if only else list(PARTS)
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise UsageError(f"--only {unknown[0]}: no such part", f"known are {', '.join(PARTS)}")
    there: dict[str, bool] = {}
    for name in (name for name in PARTS if name in names):
        evaluator = PARTS[name]
        there[name] = evaluator is None or is_there(evaluator)
        if only and not there[name]:
            raise UsageError(
                f"{name} needs the evaluator {evaluator}, which is not installed", WITHOUT.get(str(evaluator), EXTRA)
            )
    return there


def evaluate(
    clvp: Clvp, data: Path, only: str | None = None, limit: int = 0, keep: Keep | None = None
) -> Iterator[Figure]:
    """Every figure of the parts asked for, as it is known.

    Args:
        data: a directory with manifest.tsv (set, file, speaker, seconds, text); only its dev/ sets are used.
        only: parts, separated by commas; None for all of them, less those whose evaluator is not installed.
        limit: at most so many clips of each set, and sentences; 0 for all.
        keep: called with the record of every candidate of best-of-n.
    Raises:
        UsageError, InputError: what is asked for cannot be done, told before any work.
    """
    parts = chosen_parts(only)
    seed = clvp.settings.seed
    material = Material(clvp, read_clips(data, limit, seed), seed)
    pools: list[Pool] = []
    for name, judged in parts.items():
        if not judged:
            hint = WITHOUT.get(str(PARTS[name]), EXTRA)
            log.warning("%s: left out, or done in part: %s is not installed (%s)", name, PARTS[name], hint)
        if name == "best-of-n" or (name == "voice" and judged and not pools):
            log.info("making candidates")
            pools = make_pools(material, limit)
        log.info("%s: %d clips", name, len(material.clips))
        yield from _part(name, judged, material, pools)
        if name == "best-of-n" and keep is not None:
            for record in (record for pool in pools for record in pool.records()):
                keep(record)


def _part(name: str, judged: bool, material: Material, pools: Sequence[Pool]) -> Iterator[Figure]:
    """The figures of one part; of what needs an evaluator that is not there, only the rest."""
    if name == "retrieval":
        yield from retrieval(material)
    elif name == "damage":
        yield from damage(material)
    elif name == "codec":
        yield from codebook(material)
        if judged:
            yield from codec(material)
    elif name == "best-of-n":
        yield from stopping(pools, material.seed)
        if judged:
            measure(material, pools)
            yield from best_of_n(pools, material.seed)
    elif name == "voice":
        if judged:
            yield from likeness(material, pools)
    elif name == "opinion":
        if judged:
            yield from opinion(material)
    else:
        yield from generation_time(material)


def generation_time(material: Material) -> Iterator[Figure]:
    """Seconds of `clvp generate` as a process of its own, 16 candidates and the best one as audio: the median run."""
    voice = voices(material, 1)[0]
    seconds = []
    with tempfile.TemporaryDirectory() as directory:
        out = Path(directory)
        line = [sys.executable, "-m", "clvp_cli", "generate", "-t", SENTENCE, "-r", str(voice.path.resolve())]
        line += ["-m", str(material.clvp.core.path.resolve()), "-n", "16", "--seed", str(material.seed)]
        line += ["-o", str(out / "best.npz"), "--wav", str(out / "best.wav")]
        before = os.times()
        for _ in range(RUNS):
            begun = time.perf_counter()
            ended = subprocess.run(line, capture_output=True, text=True)
            seconds.append(time.perf_counter() - begun)
            if ended.returncode:
                raise ClvpError(f"clvp generate failed: {ended.stderr.strip()[-200:]}", "run it by itself")
        after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    more = {"bounds": "fastest, slowest", "cpu_seconds": round(spent / RUNS, 2), "sentence": SENTENCE}
    yield Figure("time.generate", float(np.median(seconds)), RUNS, min(seconds), max(seconds), more=more)
