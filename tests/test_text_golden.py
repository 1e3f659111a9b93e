"""The hf and tortoise texts against the golden ones (tests/golden/make_text.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest
from golden_files import GOLDEN

from clvp_cli.errors import TextError
from clvp_cli.text.normalizers import get_normalizer
from clvp_cli.text.tokenizer import load_tokenizer

CASES: list[dict[str, Any]] = json.loads((GOLDEN / "text.json").read_text("utf-8"))
UNREACHED = "日本語 текст", "emoji 🙂 here"  # anyascii spells these otherwise than Unidecode, which is GPL


@pytest.mark.parametrize("system", ["hf", "tortoise"])
@pytest.mark.parametrize("case", CASES, ids=[case["text"][:24] for case in CASES])
def test_text(case: dict[str, Any], system: str) -> None:
    """A text is normalised, encoded and decoded as the original does, and refused where the original crashes."""
    text, expected = case["text"], case[system]
    if system == "tortoise" and text in UNREACHED:
        pytest.skip("transliterated by another table")
    tokenizer, normalise = load_tokenizer(None, normalizer=system, scheme=system), get_normalizer(system)
    if "error" in expected:
        with pytest.raises(TextError):
            normalise(text)
        return
    assert normalise(text) == expected["normalized"]
    ids = tokenizer(text)["input_ids"]
    assert ids == expected["ids"]
    if system == "hf":
        assert tokenizer.decode(ids) == expected["decoded"]
