"""GenerationConfig: the published settings, as keywords and as a file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clvp_cli import GenerationConfig
from clvp_cli.errors import ConfigError


def test_published_file(tmp_path: Path) -> None:
    """The published generation_config.json reads, and what is written reads back the same."""
    content = {"bos_token_id": 8192, "eos_token_id": 8193, "do_sample": True, "max_new_tokens": 256}
    (tmp_path / "generation_config.json").write_text(json.dumps({**content, "transformers_version": "4.37.2"}))
    read = GenerationConfig.from_pretrained(tmp_path)
    assert (read.do_sample, read.max_new_tokens, read.eos_token_id, read.top_k) == (True, 256, 8193, 50)
    read.save_pretrained(tmp_path / "again")
    assert GenerationConfig.from_pretrained(tmp_path / "again") == read


def test_as_sampling_settings() -> None:
    """The published names become this project's settings, off switches included."""
    config = GenerationConfig(
        do_sample=True, top_k=None, top_p=None, typical_p=0.9, temperature=0.7, num_return_sequences=3
    )
    options = config.sampling(prefix=10)
    assert (options.n, options.greedy, options.top_k, options.top_p, options.typical_p) == (3, False, 0, 1.0, 0.9)
    assert (options.max_codes, options.min_codes, options.code_positions) == (256, 0, "trained")


def test_lengths_count_as_published() -> None:
    """max_length and min_length count the prompt and two start codes; max_new_tokens and min_new_tokens codes alone."""
    options = GenerationConfig(max_length=40, min_length=20).sampling(prefix=10)
    assert (options.max_codes, options.min_codes) == (28, 8)
    options = GenerationConfig(max_length=40, max_new_tokens=5, min_new_tokens=3).sampling(prefix=10)
    assert (options.max_codes, options.min_codes) == (5, 3)
    with pytest.raises(ConfigError, match="leaves no room after a prompt of 20 positions"):
        GenerationConfig(max_length=20).sampling(prefix=19)


def test_merging() -> None:
    """Keyword arguments go before the configuration, None means not given, and the original stays as it was."""
    config = GenerationConfig(max_new_tokens=9, temperature=0.5)
    merged = config.merged({"temperature": None, "do_sample": True, "max_length": 50})
    assert (merged.temperature, merged.do_sample, merged.max_new_tokens, merged.max_length) == (0.5, True, None, 50)
    assert (config.do_sample, config.max_new_tokens) == (False, 9)
    assert config.update(do_sample=True) == {} and config.do_sample


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"temprature": 1.0}, "unknown generation setting 'temprature'"),
        ({"no_repeat_ngram_size": 2}, "no_repeat_ngram_size=2 is not offered"),
        ({"num_return_sequences": 2}, "without sampling"),
        ({"num_beams": 2, "num_return_sequences": 3}, "above num_beams 2"),
        ({"code_positions": "other"}, "code_positions"),
        ({"pad": 0}, "pad is 0"),
        ({"temperature": 0.0, "do_sample": True}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
        ({"max_new_tokens": "many"}, "max_new_tokens is 'many'"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0"),
        ({"num_beams": None}, "num_beams is None"),
        ({"self": 1}, "unknown generation setting 'self'"),
        ({"pad": "x" * 10**6}, r"^pad is 'x+\.\.\.x+'$"),
    ],
)
def test_refusals(values: dict[str, Any], message: str) -> None:
    """A setting that is unknown, not offered, or out of range is an error that names it."""
    with pytest.raises(ConfigError, match=message):
        GenerationConfig(**values).sampling(5)


def test_published_defaults_are_taken() -> None:
    """Settings of transformers that have no part here are taken at their defaults."""
    GenerationConfig(num_beam_groups=1, no_repeat_ngram_size=0, bad_words_ids=None, use_cache=False)
