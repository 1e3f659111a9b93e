"""The command: read the recipe, list the real speech, then speak engine by engine. May be killed and run again."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from clvp_cli.errors import ClvpError, ConfigError
from clvp_cli.training.synthesis import corpus, sentences
from clvp_cli.training.synthesis.engine import Engine
from clvp_cli.training.synthesis.hibari import phonemizer


def build(name: str, sources: Path) -> Engine:
    """An engine by name; its packages are imported here."""
    if name == "kokoro":
        from clvp_cli.training.synthesis.kokoro import Kokoro

        return Kokoro(sources / "kokoro-js" / "voices")
    if name == "hibari":
        from clvp_cli.training.synthesis.hibari import Hibari

        return Hibari()
    if name == "piper":
        from clvp_cli.training.synthesis.piper import Piper

        return Piper()
    if name in ("flite", "festival", "espeak"):
        from clvp_cli.training.synthesis.programs import Program

        return Program(name)
    raise ConfigError(f"no engine {name}", "kokoro, hibari, piper, flite, festival or espeak")


def log(line: str) -> None:
    """One line of progress on stderr."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


def run(recipe: dict[str, Any], out: Path, sources: Path, real: Path | None, until: float) -> None:
    """Carry the recipe out in `out`; see configs/mini/corpus.yaml for its keys."""
    out.mkdir(parents=True, exist_ok=True)
    seed, plan = int(recipe["seed"]), recipe["sentences"]
    sentences.prepare(plan["sources"], sources, out / "sentences.tsv", plan["held_out"], seed)
    texts = sentences.load(out / "sentences.tsv")
    manifest = corpus.Manifest(out / "manifest.jsonl", phonemizer())
    if real is not None:
        corpus.list_real(real, manifest)
    engines: dict[str, Engine] = {}
    for step in recipe["steps"]:
        for name, hours in step.items():
            if manifest.seconds[name] >= hours * 3600 or time.time() >= until:
                continue
            if name not in engines:
                try:
                    engines[name] = build(name, sources)
                except ClvpError as error:
                    log(f"{name} is left out: {error.message} ({error.hint})")
                    continue
            log(f"{name}: to {hours} h")
            corpus.speak(
                name, engines[name], recipe["engines"][name], texts, manifest,
                hours=hours, seed=seed, rate=recipe["rate"], until=until, log=log,
            )  # fmt: skip
    log(" ".join(f"{name} {seconds / 3600:.2f} h" for name, seconds in sorted(manifest.seconds.items())))


def main() -> int:
    """Parse the arguments and run; 0 when the recipe or the time is done."""
    parser = argparse.ArgumentParser(prog="python -m clvp_cli.training.synthesis", description=__doc__)
    parser.add_argument("-c", "--config", type=Path, required=True, help="the recipe: configs/mini/corpus.yaml")
    parser.add_argument("--out", type=Path, required=True, help="where audio and manifest.jsonl go")
    parser.add_argument("--sources", type=Path, help="unpacked packages (default OUT/sources)")
    parser.add_argument("--real", type=Path, help="folder of real speech with a manifest.tsv")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long")
    args = parser.parse_args()
    try:
        recipe = yaml.safe_load(args.config.read_text("utf-8"))
        run(recipe, args.out, args.sources or args.out / "sources", args.real, time.time() + 60 * args.minutes)
    except ClvpError as error:
        sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
