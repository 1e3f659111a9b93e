"""Which speaker says which sentence, and the manifest that grows a line an utterance.

Utterance i of an engine is a function of (configuration, engine, i), so a killed run goes on where it stopped. Owns
the manifest's format: one JSON object a line, {"audio", "text", "phones", "speaker", "seconds", "source", "split"};
"audio" is relative to the manifest's folder or absolute. Knows the engines by name only.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from clvp_cli.errors import ConfigError, InputError
from clvp_cli.training.synthesis.engine import Engine, finish, need

SHORTEST, LONGEST = 0.6, 11.0  # seconds; an utterance outside is left out
PATIENCE = 50  # utterances in a row that may be of no use before an engine is given up


@dataclass(frozen=True)
class Speaker:
    """A voice with a name. A held-out one reads held-out sentences only, and nothing of it is to be trained on."""

    name: str
    voice: dict[str, Any]
    held_out: bool = False


class Manifest:
    """An append-only list of utterances, with what is already there; `phones` tells how a text sounds."""

    def __init__(self, path: Path, phones: Callable[[str], str]) -> None:
        self.path, self.phones, self.done, self.seconds = path, phones, set[str](), Counter[str]()
        complete = b""
        if path.is_file():
            complete = path.read_bytes()
            complete = complete[: complete.rfind(b"\n") + 1]  # a line cut short by a kill goes
            os.truncate(path, len(complete))
        for line in complete.splitlines():
            self._count(json.loads(line))
        self.file = path.open("a", encoding="utf-8")

    def add(self, row: dict[str, Any]) -> None:
        """Append one utterance, with the phones of its text, and flush it."""
        row = {**row, "phones": self.phones(row["text"])}
        self.file.write(json.dumps(row, ensure_ascii=False) + "\n")
        self.file.flush()
        self._count(row)

    def _count(self, row: dict[str, Any]) -> None:
        self.done.add(row["audio"])
        self.seconds[row["source"]] += row["seconds"]


def speakers(engine: str, config: dict[str, Any], seed: int) -> list[Speaker]:
    """The speakers of one engine, as its section of the configuration lists them.

    `speakers` is {name: voice}; for Kokoro, `voices` names single ones and `blends` counts mixtures of two of them.
    Those named in `held_out` are held out; a blend never mixes a held-out voice with another.
    """
    held = set(config.get("held_out", []))
    found = [Speaker(f"{engine}-{n}", dict(v), n in held) for n, v in (config.get("speakers") or {}).items()]
    names: list[str] = config.get("voices") or []
    found += [Speaker(f"{engine}-{n}", {"mixture": {n: 1.0}}, n in held) for n in names]
    rng, blends = np.random.default_rng(seed), dict[str, Speaker]()
    while names and len(blends) < config.get("blends", 0):
        first, second = rng.choice(names, 2, replace=False)
        share = round(float(rng.uniform(0.35, 0.65)), 2)
        if (first in held) == (second in held):
            name = f"{engine}-{min(first, second)}+{max(first, second)}"
            mixture = {str(first): share, str(second): 1 - share}
            blends.setdefault(name, Speaker(name, {"mixture": mixture}, first in held))
    return [*found, *blends.values()]


def speak(
    name: str, engine: Engine, config: dict[str, Any], texts: dict[str, list[str]], manifest: Manifest, *,
    hours: float, seed: int, rate: int, until: float, log: Callable[[str], None],
) -> None:  # fmt: skip
    """Speak until the engine's share of the manifest reaches `hours`, or the clock `until`."""
    soundfile = need("soundfile", "soundfile")
    code = zlib.crc32(name.encode())
    people = speakers(name, config, seed)
    known, unseen = [p for p in people if not p.held_out], [p for p in people if p.held_out]
    if not known:
        raise ConfigError(f"engine {name}: no speakers", "list some under engines")
    order = np.random.default_rng([seed, code]).permutation(len(texts["train"]))
    index, failures = -1, 0
    while manifest.seconds[name] < hours * 3600 and time.time() < until:
        index += 1
        audio = f"{name}/{index // 1000:03d}/{index:06d}.flac"
        if audio in manifest.done:
            continue
        rng = np.random.default_rng([seed, code, index])
        is_unseen = bool(unseen) and rng.random() < config.get("unseen_share", 0.05)
        speaker = (unseen if is_unseen else known)[rng.integers(len(unseen if is_unseen else known))]
        held_out = is_unseen or rng.random() < 0.015
        texts_held = texts["heldout"]
        text = texts_held[rng.integers(len(texts_held))] if held_out else texts["train"][order[index % len(order)]]
        voice = {**speaker.voice, "speed": float(rng.uniform(*config.get("speed", [0.85, 1.2])))}
        try:
            samples = finish(engine(text, voice, rng), rate)
        except InputError as error:
            log(f"{name}: {error.message}")
            samples = np.zeros(0, np.float32)
        if not SHORTEST <= len(samples) / rate <= LONGEST:
            failures += 1
            if failures < PATIENCE:
                continue
            log(f"{name}: {PATIENCE} utterances in a row of no use, given up")
            return
        failures = 0
        path = manifest.path.parent / audio
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, samples, rate, subtype="PCM_16")
        manifest.add({
            "audio": audio, "text": text, "speaker": speaker.name, "seconds": round(len(samples) / rate, 3),
            "source": name, "split": "heldout" if held_out else "train",
        })  # fmt: skip
        if index % 500 == 0:
            log(f"{name}: {manifest.seconds[name] / 3600:.2f} h of {hours}")


def list_real(root: Path, manifest: Manifest) -> None:
    """Add the real speech under `root` (manifest.tsv: set, file, speaker, seconds, text): its train/ sets, never dev/.

    One speaker in 25 of a set is held out, by the checksum of the name.
    """
    for line in (root / "manifest.tsv").read_text("utf-8").splitlines()[1:]:
        group, file, speaker, seconds, text = line.split("\t")[:5]
        source = {"train/speechocean762": "so762", "train/an4": "an4"}.get(group)
        audio = str((root / file).resolve())
        if source and audio not in manifest.done:
            held_out = zlib.crc32(f"{source}-{speaker}".encode()) % 25 == 0
            manifest.add({
                "audio": audio, "text": text, "speaker": f"{source}-{speaker}", "seconds": float(seconds),
                "source": source, "split": "heldout" if held_out else "train",
            })  # fmt: skip
