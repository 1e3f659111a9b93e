"""Make the golden files of this directory: what the reference systems compute with small random models.

    python -m venv .venv-oracle            # installed as tests/oracle/requirements.txt says
    .venv-oracle/bin/python tests/golden/make.py [PART …]      # parts: hf, tortoise, text, audio; all by default

Deterministic: a second run writes the same bytes. made.json tells which versions made them. Weights are float16 files
that hold the very float32 values the references ran with; cast them up before use.

Files, and who makes them (each key is described where it is written):
    hf_partial.*, hf_biased.*        make_hf.py        config .json, weights .safetensors, inputs and outputs .npz
    hf_sampling.npz                  make_hf.py        logits in, processed scores out
    autoregressive.pth, clvp2.pth, cvvp.pth, rlg_auto.pth, dvae.pth, tortoise.npz, dvae.npz
                                     make_tortoise.py  state dicts as torch.save writes them, inputs and outputs
    text.json                        make_text.py      normalised texts, ids, decoded texts
    audio.npz                        make_audio.py     waveform recipes and log-mels
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from oracle import environment  # noqa: E402  (the reference systems live in tests/oracle)

PARTS = ("hf", "tortoise", "text", "audio")


def main(parts: list[str]) -> None:
    """Make the parts named, or all of them."""
    reason = environment.why_not()
    if reason:
        sys.exit(f"make.py: {reason}")
    environment.prepare()
    for part in parts or PARTS:
        if part not in PARTS:
            sys.exit(f"make.py: no part {part!r}; there are {', '.join(PARTS)}")
        module = __import__(f"make_{part}")
        module.make(HERE)
    (HERE / "made.json").write_text(json.dumps(environment.versions(), indent=1) + "\n", "utf-8")
    files = [path for path in sorted(HERE.iterdir()) if path.suffix in (".npz", ".safetensors", ".pth", ".json")]
    for path in files:
        print(f"{path.stat().st_size:8d}  {path.name}")
    print(f"{sum(path.stat().st_size for path in files):8d}  in all")


if __name__ == "__main__":
    main(sys.argv[1:])
