"""What this machine can do at best: memory read and products, measured in the run that they are compared with.

Knows no models; B bytes a second, operations a second.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional as F

READ_BYTES = 2**30
SHAPE = (2048, 1024, 4096)  # rows, inputs, outputs of the product that is timed


@dataclass(frozen=True)
class Machine:
    """Bytes read and operations done in a second, by the type of the products."""

    threads: int
    read: float
    products: dict[str, float]


def timed(work: Callable[[], object], repeats: int) -> list[float]:
    """Seconds of each of `repeats` calls, after one that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


@torch.inference_mode()
def measure_machine(repeats: int = 5) -> Machine:
    """The best of `repeats`: these are bounds."""
    big = torch.ones(READ_BYTES // 4)
    read = READ_BYTES / min(timed(big.sum, repeats) + timed(lambda: torch.dot(big, big), repeats))
    rows, inputs, outputs = SHAPE
    products = {}
    for name in ("float32", "bfloat16"):
        x = torch.randn(rows, inputs).to(getattr(torch, name))
        weight = torch.randn(outputs, inputs).to(x.dtype)
        best = min(timed(lambda x=x, weight=weight: F.linear(x, weight), repeats))  # type: ignore[misc]
        products[name] = 2 * rows * inputs * outputs / best
    return Machine(torch.get_num_threads(), read, products)


CHILD = """
import json, sys, time
from pathlib import Path
import torch
from clvp_cli.bench.speed_machine import peak_memory
from clvp_cli.core import Core
from clvp_cli.settings import Settings
before = peak_memory()
start = time.perf_counter()
core = Core(Path(sys.argv[1]), Settings(dtype=sys.argv[2], device="cpu"))
for part in sys.argv[3].split(","):
    getattr(core, part)
seconds = time.perf_counter() - start
print(json.dumps({"seconds": seconds, "peak": peak_memory() - before}))
"""


def peak_memory() -> int:
    """The most bytes that this process has held; Linux's usage counts its parent's before the start too."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def loading(path: Path, dtype: str, parts: str, repeats: int) -> tuple[list[float], float]:
    """Seconds to load parts of a model in processes of their own, and the largest peak of memory (bytes) above
    what Python and torch take before."""
    made = []
    for _ in range(repeats):
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path), dtype, parts], capture_output=True, text=True, check=True
        )
        made.append(json.loads(child.stdout))
    return [entry["seconds"] for entry in made], max(entry["peak"] for entry in made)


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest."""
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}
