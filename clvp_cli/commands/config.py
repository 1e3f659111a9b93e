"""`clvp config show`: the settings as they result, and where each comes from."""

from __future__ import annotations

import typer

from .options import CONFIG, MODEL, NORMALIZER, SAMPLING, SCORING, SEED, Run, command
from .program import app

config_app = typer.Typer(help="Settings and where they come from.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(config_app, name="config")


@command(config_app, "show", MODEL, SEED, NORMALIZER, SAMPLING, SCORING, CONFIG)
def show(run: Run) -> None:
    """Print every setting, its value and its origin: flags > environment > --config > the user's file > defaults.

    \b
    clvp config show -c tortoise -c fast
    """
    rows = ({"setting": name, "value": value, "origin": origin} for name, value, origin in run.resolved.rows())
    run.deliver(rows, ("setting", "value", "origin"))


@command(config_app, "list")
def names(run: Run) -> None:
    """Print the shipped configurations."""
    from ..settings import shipped_configs

    rows = ({"name": name, "file": str(path)} for name, path in shipped_configs().items())
    run.deliver(rows, ("name", "file"))
