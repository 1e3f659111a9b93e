"""`clvp train`: train or fine-tune a codec, decoder, contrastive pair, alignment head or recogniser of phones."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from ..errors import UsageError
from .options import Run, command
from .program import app

Task = Literal["codec", "decoder", "clvp", "alignment", "phones"]
COLUMNS = ("task", "steps", "best", "model")


@command(app, "train")
def train(
    run: Run,
    task: Annotated[
        Task,
        typer.Argument(
            help="codec | decoder | clvp (the contrastive pair) | alignment (its CTC head) | phones (what teaches them)"
        ),
    ],
    config: Annotated[
        Path | None, typer.Option("-c", "--config", help="A YAML file: data, sizes, steps; see configs/mini/.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="The run's directory (runs/TASK); its model/ is the result.")
    ] = None,
    model: Annotated[
        str | None, typer.Option("-m", "--model", help="A model to start from; parts it lacks are made new.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is in OUT.")] = False,
) -> None:
    """Train from a manifest of audio or codes, text and speaker.

    \b
    clvp train codec -c configs/mini/codec.yaml -o runs/codec
    clvp train clvp -c tune.yaml -m runs/alignment/model -o runs/clvp
    clvp train clvp -c tune.yaml -m runs/alignment/model -o runs/clvp --resume
    """
    if config is None:
        raise UsageError("no configuration was given", f"clvp train {task} -c TRAIN.yaml")
    from ..training.train import train as start

    gc.enable()  # see __main__: no record comes before the end
    progress = Progress(sys.stderr.isatty() and not run.output.quiet)
    done = start(
        task, config, out or Path("runs") / task, resume, model=model, report=progress.report, note=progress.note
    )
    progress.end()
    run.deliver([done], COLUMNS)


class Progress:
    """One line on stderr that is written over, at a terminal only."""

    def __init__(self, live: bool) -> None:
        self.live = live
        self.held_out = ""

    def report(self, row: Mapping[str, Any]) -> None:
        """A line of the run's log."""
        if "held_out_loss" in row:
            self.held_out = f" · held out {row['held_out_loss']:.4f}"
        elif "loss" in row:
            self._show(f"step {row['step']}/{row['steps']} · loss {row['loss']:.4f}{self.held_out}")

    def note(self, what: str, done: int, of: int) -> None:
        """How far a preparation is."""
        if done % 20 == 0 or done == of:
            self._show(f"{what}: {done} of {of}")

    def end(self) -> None:
        """Leave the line."""
        if self.live:
            print(file=sys.stderr)

    def _show(self, line: str) -> None:
        if self.live:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
