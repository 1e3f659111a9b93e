"""Skips the live comparisons where the references are missing, marks them, and shows the seed of the run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from . import environment

HERE = Path(__file__).resolve().parent
REASON = environment.why_not()
if REASON is None:
    environment.prepare()


class MissingReference(pytest.Module):
    """A test module that cannot even be imported here."""

    def collect(self) -> list[pytest.Item]:
        pytest.skip(str(REASON), allow_module_level=True)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module | None:
    if REASON and HERE in module_path.parents:
        return MissingReference.from_parent(parent, path=module_path)
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.oracle)
            item.add_marker(pytest.mark.filterwarnings("ignore"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    live = sys.modules.get("oracle.live")
    if hasattr(live, "SEED"):
        terminalreporter.write_line(f"oracle: CLVP_ORACLE_SEED={live.SEED} repeats this run")
