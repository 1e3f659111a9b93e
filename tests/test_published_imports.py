"""The public names, loaded when they are first used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import clvp_cli


def test_every_public_name_is_there() -> None:
    """Every name of __all__ can be had, and an unknown one is an AttributeError."""
    for name in clvp_cli.__all__:
        assert getattr(clvp_cli, name) is not None, name
    assert set(clvp_cli.__all__) <= set(dir(clvp_cli))
    with pytest.raises(AttributeError, match="no attribute 'ClvpModal'"):
        clvp_cli.ClvpModal  # noqa: B018


@pytest.mark.parametrize(
    "use",
    [
        "",
        "clvp_cli.ClvpConfig()",
        "clvp_cli.ClvpTokenizer()('Hello world')",
        "clvp_cli.GenerationConfig()",
        "clvp_cli.ClvpProcessor",
        "clvp_cli.ClvpError",
    ],
)
def test_no_torch(use: str) -> None:
    """The import alone, configurations, the tokenizer and the processor load no torch."""
    script = f"import sys, clvp_cli\n{use}\nassert not {{'torch', 'librosa', 'transformers'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
