"""What several tests share: where the real speech lies, if it does."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_data() -> Path:
    """The directory of real speech beside the project; skips the test where it is absent."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("real speech (../shared/data) is not beside this checkout")
    return path
