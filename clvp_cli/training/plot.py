"""The loss curves of a run as a picture, where matplotlib is installed. Knows only the log's lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from ..io.atomic import atomic_write


def plot_losses(log: Path, picture: Path) -> bool:
    """Draw training and held-out loss over steps as PNG; False where matplotlib is missing or nothing was logged."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows: list[dict[str, Any]] = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name, label in (("loss", "training"), ("held_out_loss", "held out")):
        points = [(row["step"], row[name]) for row in rows if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, marker="o" if name != "loss" else None, markersize=3)
    if not axes.lines:
        return False
    axes.set_xlabel("step")
    axes.set_ylabel("loss")
    axes.legend()
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    with atomic_write(picture) as file:
        file.write(content.getvalue())
    return True
