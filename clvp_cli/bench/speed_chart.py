"""The figures of `clvp bench speed` as a picture.

Bars of each measure's median with whiskers from least to largest; seconds over N and over codes, where growth was
measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import UsageError
from ..io.atomic import atomic_write

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = {"generate": "codes a second", "score": "candidates a second"}


def need_matplotlib() -> None:
    """Raise UsageError, before any work, where no picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib", "pip install 'clvp[plot]'") from None


def draw(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw generation, scoring and growth, those of them that there are, into a PNG."""
    need_matplotlib()
    from matplotlib.figure import Figure

    bars = {measure: rows for measure in SHOWN if (rows := [r for r in records if r["measure"] == measure])}
    growth = [record for record in records if record["measure"] == "growth"]
    panels = len(bars) + 2 * bool(growth)
    figure = Figure(figsize=(4.5 * max(1, panels), 4), layout="constrained")
    for place, (measure, rows) in enumerate(bars.items(), start=1):
        _bars(figure.add_subplot(1, panels, place), rows, f"{measure}: {SHOWN[measure]}")
    for place, (over, fixed) in enumerate((("n", "codes"), ("codes", "n")), start=len(bars) + 1):
        if growth:
            _line(figure.add_subplot(1, panels, place), growth, over, fixed)
    with atomic_write(path) as file:
        figure.savefig(cast("BinaryIO", file), format="png", dpi=120)


def _bars(axes: Axes, rows: Sequence[Mapping[str, Any]], title: str) -> None:
    names = [f"{row['system']}\n{row['dtype']}, N = {row['n']}" for row in rows]
    middles = [row["median"] for row in rows]
    spans = [
        [row["median"] - row.get("low", row["median"]) for row in rows],
        [row.get("high", row["median"]) - row["median"] for row in rows],
    ]
    colours = ["tab:blue" if row["system"] == "clvp" else "tab:grey" for row in rows]
    axes.barh(names, middles, xerr=spans, color=colours)
    axes.invert_yaxis()
    axes.set_title(title)


def _line(axes: Axes, rows: Sequence[Mapping[str, Any]], over: str, fixed: str) -> None:
    """Seconds over one of n and codes, at the value of the other that most rows have."""
    values = [row[fixed] for row in rows]
    usual = max(set(values), key=values.count)
    points = sorted({row[over]: row["median"] for row in rows if row[fixed] == usual}.items())
    axes.plot(*zip(*points, strict=True), marker="o")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.set_title(f"seconds over {over}, {fixed} = {usual}")
