"""One training loop for every task: steps, evaluation, early stopping, checkpoints that a later run takes up exactly.

A step is a function of the weights, the seed and its number (data and dropout are drawn from both), so resuming gives
the curve that an uninterrupted run would have given. Owns when things happen; tasks own what.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..io.atomic import translated, undisturbed
from ..model.precision import multiplies_halves
from .config import LoopConfig, OptimConfig
from .muon import Muon
from .plot import plot_losses
from .state import LOG, MODEL, PLOT, STATE, Progress, begin, device_of, save_state

Report = Callable[[Mapping[str, Any]], None]


class Task(Protocol):
    """What is trained. `module` holds every weight and buffer that a resumed run needs."""

    module: nn.Module

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step's batch, and figures for the log."""
        ...

    def after_step(self, step: int) -> None:
        """Whatever follows the optimiser's step."""
        ...

    def held_out(self, batches: int) -> dict[str, float]:
        """Figures on held-out clips, "loss" among them; empty where there are none."""
        ...

    def export(self, path: Path) -> None:
        """Write the model so far as a model directory, replacing an earlier one."""
        ...


def run(task: Task, loop: LoopConfig, optim: OptimConfig, out: Path, *, report: Report) -> Progress:
    """Train `task` to loop.steps, or until it stops getting better; `out` gets state.pt, log.jsonl, loss.png, model/.

    A state in `out`, which the caller has `claimed`, is taken up.

    Raises:
        OutputError: `out` cannot be written.
        CheckpointError: the state to resume from is of another model.
        InputError: the loss is no longer a number.
    """
    optimizers = make_optimizers(task.module, optim)
    progress = begin(task.module, optimizers, out)
    started = time.monotonic()
    with translated(out / LOG):
        file = (out / LOG).open("ab", buffering=0)
    with file as log:

        def note(row: dict[str, Any]) -> None:
            with translated(out / LOG):
                log.write(json.dumps(row).encode() + b"\n")
            report({**row, "steps": loop.steps})

        whole = True  # whether the weights and buffers are those between two steps
        try:
            while True:
                last = progress.step == loop.steps
                if progress.evaluated < progress.step and (progress.step % loop.evaluate_every == 0 or last):
                    _evaluate(task, loop, out, progress, note)
                if progress.step and progress.step % loop.save_every == 0:
                    save_state(task.module, optimizers, progress, out)
                if progress.step >= loop.steps or (loop.patience and progress.stale >= loop.patience):
                    break
                with undisturbed():
                    whole = False
                    figures = _step(task, optimizers, loop, optim, progress)
                    whole = True
                    if progress.step % loop.log_every == 0 or progress.step == loop.steps:
                        note({"step": progress.step, **figures, "seconds": round(time.monotonic() - started, 1)})
        except KeyboardInterrupt:
            raise KeyboardInterrupt("go on with it with --resume") from None
        except InputError:
            whole = False  # the weights have gone astray: the last state stays
            raise
        finally:
            if whole:
                save_state(task.module, optimizers, progress, out)  # also after Ctrl-C
            elif not progress.step and not (out / MODEL).exists():
                (out / STATE).unlink(missing_ok=True)  # nothing to go on with: another try may begin anew
    if loop.plot:
        plot_losses(out / LOG, out / PLOT)
    return progress


def make_optimizers(module: nn.Module, optim: OptimConfig) -> list[torch.optim.Optimizer]:
    """AdamW, where matrices decay and vectors and embeddings do not; with `muon`, Muon for the matrices between."""
    inner: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if not parameter.requires_grad:
            continue
        is_table = any(word in name for word in ("embed", "lm_head"))
        if optim.muon and parameter.ndim == 2 and not is_table:
            inner.append(parameter)
        else:
            (kept if parameter.ndim < 2 or "embed" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": optim.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    made: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(groups, lr=optim.learning_rate, betas=(optim.beta1, optim.beta2))
    ]
    if inner:
        made.append(Muon(inner, optim.learning_rate, optim.weight_decay))
    return made


def learning_rate(step: int, steps: int, optim: OptimConfig) -> float:
    """Linear warm-up, then a cosine down to `final` of the full rate."""
    warm = min(1.0, (step + 1) / max(1, optim.warmup))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, steps))))
    return optim.learning_rate * warm * (optim.final + (1 - optim.final) * fall)


def _step(
    task: Task,
    optimizers: Sequence[torch.optim.Optimizer],
    loop: LoopConfig,
    optim: OptimConfig,
    progress: Progress,
) -> dict[str, float]:
    step = progress.step
    torch.manual_seed(loop.seed * 1_000_003 + step)
    rate = learning_rate(step, loop.steps, optim)
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
        for group in optimizer.param_groups:
            group["lr"] = rate
    task.module.train()
    with autocast(loop.precision, device_of(task.module)):
        loss, figures = task.loss(step)
    value = float(loss.detach())
    check_finite(f"step {step}: the loss", value)
    loss.backward()  # type: ignore[no-untyped-call]
    parameters = [p for p in task.module.parameters() if p.requires_grad]
    norm = float(nn.utils.clip_grad_norm_(parameters, optim.clip or math.inf))
    check_finite(f"step {step}: the gradient's norm", norm)
    for optimizer in optimizers:
        optimizer.step()
    task.after_step(step)
    progress.step += 1
    return {"loss": round(value, 5), **_rounded(figures), "lr": rate, "norm": round(norm, 4)}


def _evaluate(
    task: Task, loop: LoopConfig, out: Path, progress: Progress, note: Callable[[dict[str, Any]], None]
) -> None:
    task.module.eval()
    with torch.no_grad(), autocast(loop.precision, device_of(task.module)):
        figures = task.held_out(loop.held_out_batches)
    loss = figures.get("loss")
    check_finite(f"step {progress.step}: the held-out loss", loss or 0.0)
    if figures:
        note({"step": progress.step, **{f"held_out_{name}": value for name, value in _rounded(figures).items()}})
    if loss is None or loss < progress.best:  # without held-out clips the latest is the best
        task.export(out / MODEL)
        progress.best, progress.stale = progress.best if loss is None else loss, 0
    else:
        progress.stale += 1
    progress.evaluated = progress.step


def check_finite(what: str, value: float) -> None:
    """InputError where a figure is no longer a number; the weights of the last good step are kept."""
    if not math.isfinite(value):
        raise InputError(f"{what} is {value}", "lower optim.learning_rate, or use precision: float32")


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """bfloat16 where it is asked for, or where it is fast and nothing is."""
    halves = precision == "bfloat16" or (precision == "auto" and multiplies_halves(device))
    return torch.autocast(device.type, torch.bfloat16, enabled=halves)


def _rounded(figures: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 5) for name, value in figures.items()}
