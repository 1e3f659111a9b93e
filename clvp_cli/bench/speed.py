"""`clvp bench speed`: generation, scoring, loading and memory, beside the machine's own bounds and a peer.

Every figure is a median with its spread; runs of the two systems alternate in one process. Works on any model whose
decoder and encoders are there; prompts and candidates are drawn from a fixed seed.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import UsageError
from ..generation.engine import Prompt, generate, prefill
from ..pipeline import Clvp
from ..records import Candidate
from ..settings import SamplingSettings
from ..signals import judge
from .speed_agreement import agreement
from .speed_machine import Machine, loading, measure_machine, spread
from .speed_peer import Transformers, padded

log = logging.getLogger("clvp")

COLUMNS = (
    "measure",
    "system",
    "dtype",
    "n",
    "codes",
    "median",
    "low",
    "high",
    "unit",
    "fraction",
    "ratio",
    "tau",
    "top1",
    "kl",
)
WEIGHT_BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "int8": 1.0, "int4": 0.53}
PROMPT = 40  # positions of the prefix that is timed: a sentence
LENGTHS = (20, 400)  # codes of the candidates that are scored
SCORED = 64
PEERS = 8
TORTOISE_LENGTH = 500
WARM_CODES = 3  # a run of these comes before the one that counts
GROWING_N = (1, 2, 4, 8, 16, 32, 64, 128)
GROWING_CODES = (50, 100, 200, 300, 400, 500)
Record = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What to measure: N candidates of so many codes, each figure `repeats` times, against a peer or alone."""

    n: int = 16
    codes: int = 200
    repeats: int = 3
    against: str | None = None
    skip: frozenset[str] = frozenset({"agreement", "growth"})  # of PARTS


PARTS = ("load", "generate", "score", "agreement", "growth")
USUAL = PARTS[:3]  # the others take long: for those who ask
TYPES = ("bfloat16", "int8", "int4")
TEXTS = (
    "The morning train left without us.",
    "Nobody had told the gardener about the wedding.",
    "She counted the lights along the harbour twice.",
    "A quiet road is a kind of promise.",
)


def planned(n: int, codes: int, repeats: int, against: str | None, only: str | None) -> Plan:
    """A plan from what the command line says; UsageError for a peer or a part that is not known."""
    if against not in (None, "transformers"):
        raise UsageError(f"--against {against!r} is not known", "it is transformers")
    wanted = only.split(",") if only else USUAL
    wrong = [part for part in wanted if part not in PARTS]
    if wrong:
        raise UsageError(f"--only {wrong[0]!r} is not measured", f"known are {', '.join(PARTS)}")
    return Plan(n, codes, repeats, against, frozenset(PARTS) - frozenset(wanted))


def measure(clvp: Clvp, plan: Plan) -> Iterator[Record]:
    """Every record of `clvp bench speed`, as it is known."""
    machine = measure_machine()
    yield record("memory read", machine.read / 1e9, "GB/s", threads=machine.threads)
    for name, rate in machine.products.items():
        yield record("products", rate / 1e9, "GFLOPS", dtype=name)
    peer = Transformers(clvp.core.path, _peer_dtype(clvp)) if plan.against else None
    if "load" not in plan.skip:
        yield from _loading(clvp, plan)
    if "generate" not in plan.skip:
        yield from _prefill(clvp, plan)
        yield from _generation(clvp, plan, machine, peer)
    if "score" not in plan.skip:
        yield from _scoring(clvp, plan, machine, peer)
    if "agreement" not in plan.skip:
        width = clvp.core.config.decoder_config.hidden_size
        voice = np.random.default_rng(4).normal(0, 0.1, width).astype(np.float32)
        yield from agreement(clvp, TYPES, voice, TEXTS)
    if "growth" not in plan.skip:
        yield from _growth(clvp, plan)


def record(measure: str, values: float | dict[str, float], unit: str, **more: Any) -> Record:
    """One figure."""
    figures = values if isinstance(values, dict) else {"median": values}
    return {"measure": measure, **figures, "unit": unit, **more}


def _peer_dtype(clvp: Clvp) -> str:
    """The peer's type: its default beside ours and beside types that it has not, or else ours."""
    name = "float32" if clvp.settings.dtype == "auto" else clvp.core.precision.name
    return name if name in ("float32", "bfloat16", "float16") else "float32"


def _loading(clvp: Clvp, plan: Plan) -> Iterator[Record]:
    name, tensors = clvp.core.precision.name, clvp.core.checkpoint.tensors
    for measure, parts, prefixes in (
        ("load decoder", "decoder", ("speech_decoder",)),
        ("load encoders", "text_encoder,speech_encoder", ("text_encoder", "speech_encoder")),
    ):
        seconds, peak = loading(clvp.core.path, name, parts, plan.repeats)
        weights = sum(t.numel for key, t in tensors.items() if key.startswith(prefixes)) * WEIGHT_BYTES[name]
        yield record(measure, spread(seconds), "s", dtype=name)
        yield record(f"{measure}: peak memory", peak / 1e6, "MB", dtype=name, of_weights=peak / weights)


def _prefix(clvp: Clvp) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    width = clvp.core.config.decoder_config.hidden_size
    return (torch.randn(PROMPT, width, generator=generator) * 0.1).to(clvp.core.device, clvp.core.dtype)


def _prefill(clvp: Clvp, plan: Plan) -> Iterator[Record]:
    decoder, prefix = clvp.core.decoder, _prefix(clvp)

    def run() -> None:
        with torch.inference_mode():
            prefill(decoder, prefix)

    seconds = alternate([run], max(3, plan.repeats))[0]
    yield record("prefill", spread([s * 1e3 for s in seconds]), "ms", dtype=clvp.core.precision.name, codes=PROMPT)


def alternate(systems: Sequence[Callable[[], object]], repeats: int, *, warm: bool = True) -> list[list[float]]:
    """Seconds of each system's runs, taken in turns, each system warmed up first."""
    seconds: list[list[float]] = [[] for _ in systems]
    for system in systems if warm else ():
        system()
    for _ in range(repeats):
        for place, system in enumerate(systems):
            start = time.perf_counter()
            system()
            seconds[place].append(time.perf_counter() - start)
    return seconds


def fixed_length(codes: int) -> SamplingSettings:
    """Sampling as by default, but every candidate has so many codes."""
    return SamplingSettings(max_codes=codes, min_codes=codes)


def _speaking(clvp: Clvp, n: int, codes: int) -> Callable[[], object]:
    """What makes n candidates of so many codes."""
    decoder, prompt, batch = clvp.core.decoder, Prompt(_prefix(clvp), 1, range(n)), clvp.settings.batch_size
    return lambda: list(generate(decoder, [prompt], fixed_length(codes), batch_size=batch))


def _growth(clvp: Clvp, plan: Plan) -> Iterator[Record]:
    """Seconds over N at the fewest codes, and over codes at the plan's N."""
    for n, codes in (*((n, GROWING_CODES[0]) for n in GROWING_N), *((plan.n, codes) for codes in GROWING_CODES)):
        seconds = alternate([_speaking(clvp, n, codes)], plan.repeats, warm=False)[0]
        yield record("growth", spread(seconds), "s", system="clvp", dtype=clvp.core.precision.name, n=n, codes=codes)


def _generation(clvp: Clvp, plan: Plan, machine: Machine, peer: Transformers | None) -> Iterator[Record]:
    name = clvp.core.precision.name
    prefix = _prefix(clvp)
    weights = (
        sum(t.numel for key, t in clvp.core.checkpoint.tensors.items() if key.startswith("speech_decoder"))
        * WEIGHT_BYTES[name]
    )
    for n in dict.fromkeys((plan.n, 1)):
        options = fixed_length(plan.codes)

        systems: list[Callable[[], object]] = [_speaking(clvp, n, plan.codes)]
        _speaking(clvp, n, WARM_CODES)()
        if peer is not None:
            systems.append(lambda n=n, options=options: peer.generate(prefix, n, options))  # type: ignore[misc]
            peer.generate(prefix, n, fixed_length(WARM_CODES))
        seconds = alternate(systems, plan.repeats, warm=False)
        rates = [[plan.codes / s for s in each] for each in seconds]
        bound = machine.read / weights
        for place, steps in enumerate(rates):
            system = "clvp" if place == 0 or peer is None else peer.name
            dtype = name if place == 0 else _peer_dtype(clvp)
            common = {"system": system, "dtype": dtype, "n": n, "codes": plan.codes}
            middle = spread(steps)
            ratio = {} if place or peer is None else {"ratio": middle["median"] / spread(rates[1])["median"]}
            fraction = {} if place else {"bound": bound, "fraction": middle["median"] / bound}
            yield record("steps", middle, "steps/s", **common, **fraction, **ratio)
            yield record("generate", spread([n * s for s in steps]), "codes/s", **common, **ratio)


def candidates(clvp: Clvp) -> list[Candidate]:
    """Candidates of mixed lengths whose codes are drawn from a fixed seed."""
    draw = np.random.default_rng(2)
    vocab = min(clvp.core.config.speech_config.vocab_size, clvp.core.config.decoder_config.bos_token_id)
    return [
        Candidate(draw.integers(0, vocab, int(draw.integers(LENGTHS[0], LENGTHS[1] + 1))), True, index)
        for index in range(SCORED)
    ]


def operations(clvp: Clvp, length: int) -> float:
    """Operations of the speech encoder over a candidate of so many codes."""
    config = clvp.core.config.speech_config
    width, inner = config.hidden_size, config.intermediate_size
    layer = 2 * length * (4 * width * width + 3 * width * inner) + 4 * length * length * width
    return float(config.num_hidden_layers * layer)


def _scoring(clvp: Clvp, plan: Plan, machine: Machine, peer: Transformers | None) -> Iterator[Record]:
    """Ours over all candidates; the peer's over PEERS of them, padded as all must be: padded, each costs the same.

    How far the two's scores are apart is of these PEERS, one by one without pads.
    """
    core, name = clvp.core, clvp.core.judging.name
    found = candidates(clvp)
    ids = np.arange(3, 43, dtype=np.int64)

    def ours(some: Sequence[Candidate] = found) -> NDArray[np.float64]:
        core.clvp.forget()
        return judge([core.clvp], core.reader, ids, some)["clvp"]

    systems: list[Callable[[], object]] = [ours]
    told: list[Record] = [{"system": "clvp", "dtype": name, "n": len(found)}]
    if peer is not None:
        fill = core.config.decoder_config.decoder_fixing_codes[0]
        rows = [core.reader.codes(candidate) for candidate in found]
        closed = np.append(ids, core.config.text_config.eos_token_id)  # which we add ourselves
        theirs = [peer.score(closed, row[None])[0] for row in rows[:PEERS]]
        apart = np.abs(ours(found[:PEERS]) / core.clvp.scale - theirs)
        named = {"system": peer.name, "dtype": _peer_dtype(clvp), "n": PEERS}
        yield record("score difference", float(apart.max()), "cosine", **named)
        for length, text_each in ((max(map(len, rows)), False), (TORTOISE_LENGTH, True)):
            codes = padded(rows[:PEERS], length, fill)
            systems.append(lambda codes=codes, each=text_each: peer.score(ids, codes, text_each=each))  # type: ignore[misc]
            way = f"{peer.name}, padded to {length}" + (", a text encoding each" if text_each else "")
            told.append({"system": way, "dtype": _peer_dtype(clvp), "n": len(codes)})
    ours(found[:4])
    seconds = alternate(systems, plan.repeats, warm=False)
    rates = [spread([each["n"] / s for s in taken]) for each, taken in zip(told, seconds, strict=True)]
    best, limit = rates[0]["median"], {}
    if name in machine.products:
        bound = machine.products[name] * len(found) / sum(operations(clvp, c.length + 1) for c in found)
        limit = {"bound": bound, "fraction": best / bound}
    yield record("score", rates[0], "candidates/s", **told[0], **limit)
    for each, rate in zip(told[1:], rates[1:], strict=True):
        yield record("score", rate, "candidates/s", **each, ours_over_it=best / rate["median"])
