"""The figures of `clvp bench speed` as a picture: bars of each measure's median, whiskers from least to largest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import UsageError

SHOWN = {"generate": "codes a second", "score": "candidates a second"}


def need_matplotlib() -> None:
    """Raise UsageError, before any work, where no picture can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UsageError("--plot needs matplotlib", "pip install 'clvp[plot]'") from None


def bar_chart(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw generation and scoring into a PNG."""
    need_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4), layout="constrained")
    for place, (measure, unit) in enumerate(SHOWN.items(), start=1):
        rows = [record for record in records if record["measure"] == measure]
        axes = figure.add_subplot(1, len(SHOWN), place)
        names = [f"{row['system']}\n{row['dtype']}, N = {row['n']}" for row in rows]
        middles = [row["median"] for row in rows]
        spans = [
            [row["median"] - row.get("low", row["median"]) for row in rows],
            [row.get("high", row["median"]) - row["median"] for row in rows],
        ]
        colours = ["tab:blue" if row["system"] == "clvp" else "tab:grey" for row in rows]
        axes.barh(names, middles, xerr=spans, color=colours)
        axes.invert_yaxis()
        axes.set_title(f"{measure}: {unit}")
    figure.savefig(path, format="png", dpi=120)
