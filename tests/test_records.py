"""Records: the JSON fields that scripts rely on."""

from __future__ import annotations

import json

import numpy as np

from clvp_cli.records import SCHEMA_VERSION, Candidate, Ranked, Scored


def test_a_candidates_record_has_its_fields() -> None:
    """index, codes, length, stopped, seed, logprob and the schema's version; foreign fields pass through."""
    candidate = Candidate(np.array([3, 4]), True, 2, "a.jsonl", 7, -1.5, {"speaker": "x", "length": 99})
    record = json.loads(json.dumps(candidate.record()))
    assert record == {
        "speaker": "x", "schema": SCHEMA_VERSION, "index": 2, "codes": [3, 4], "length": 2, "stopped": True,
        "seed": 7, "logprob": -1.5,
    }  # fmt: skip


def test_a_ranked_record_has_its_fields() -> None:
    """rank, index, source, score, cosine, length, stopped, signals; codes and ranked_by where they belong."""
    scored = Scored(Candidate(np.array([3]), False, source="b.npy"), {"clvp": 2.0, "alignment": float("-inf")}, 0.2)
    record = Ranked(scored, 1, 2.0).record()
    assert list(record) == ["schema", "rank", "index", "source", "score", "cosine", "length", "stopped", "signals"]
    assert record["signals"] == {"clvp": 2.0, "alignment": None}, "JSON has no infinity"
    assert Ranked(scored, 1, 2.0, ("alignment",)).record(with_codes=True)["ranked_by"] == ["alignment"]
    assert Ranked(scored, 1, 2.0).record(with_codes=True)["codes"] == [3]
