"""`clvp model`: what a model is, one from another format, one from the hub, one of random weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import typer

from .options import CONFIG, MODEL, SEED, Run, command
from .program import app

model_app = typer.Typer(help="Models: look at, convert, fetch, make.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(model_app, name="model")

Destination = Annotated[str, typer.Argument(metavar="DST", help="The directory to make.", show_default=False)]
Force = Annotated[bool, typer.Option("--force", help="Replace a model directory that is there.")]
StoredAs = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        help="float32 | bfloat16 | float16 | int8 (the decoder); as they are if not given.",
        show_default=False,
    ),
]
COLUMNS = ("property", "value")


@command(model_app, "info", {"model": MODEL["model"]}, CONFIG)
def info(
    run: Run,
    name: Annotated[
        str | None, typer.Argument(metavar="MODEL", help="As -m takes it; the settings' model if not given.")
    ] = None,
) -> None:
    """Tell what a model is.

    Its format, parts, parameters, sizes, side models and files; no weights are loaded.

    \b
    clvp model info
    clvp model info path/to/model --json | jq .parameters
    """
    from ..modelcare import model_facts

    _deliver(run, model_facts(name or run.settings.model))


@command(model_app, "convert")
def convert(
    run: Run,
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model of any format.", show_default=False)],
    target: Destination,
    dtype: StoredAs = None,
    force: Force = False,
) -> None:
    """Write a model as a safetensors directory.

    From Tortoise's files, pytorch_model.bin, or safetensors of another type.

    \b
    clvp model convert tortoise/.models clvp-tortoise
    clvp model convert old new --dtype bfloat16
    clvp model convert old new --dtype int8
    """
    from ..modelcare import convert_model

    _deliver(run, convert_model(source, target, dtype, force))


@command(model_app, "fetch")
def fetch(
    run: Run,
    hub_id: Annotated[
        str, typer.Argument(metavar="HUB_ID", help="ORG/NAME, or ORG/NAME@REVISION.", show_default=False)
    ],
    revision: Annotated[
        str | None, typer.Option("--revision", help="A branch, tag or commit (main).", show_default=False)
    ] = None,
) -> None:
    """Fetch a model from the hub.

    It goes into the local cache, where -m HUB_ID finds it. This is the one command that uses the network.

    \b
    clvp model fetch susnato/clvp_dev && clvp model info susnato/clvp_dev
    """
    from ..io.hub import fetch_model

    path = fetch_model(hub_id, revision)
    if run.output.table_wanted():
        print(path)  # bare, to be copied: a table would fold it
    else:
        run.output.deliver([{"model": hub_id, "revision": revision, "path": str(path)}], ("path",), None)


@command(model_app, "random", SEED)
def random(
    run: Run,
    target: Destination,
    sizes: Annotated[str, typer.Option("--config", help="full | tiny | a CONFIG.json.")] = "tiny",
    dtype: StoredAs = None,
    force: Force = False,
) -> None:
    """Make a model of random weights.

    To try the program with, or to train from.

    \b
    clvp model random scratch --config tiny --seed 1
    """
    from ..modelcare import random_model

    seed = run.settings.seed
    _deliver(run, random_model(target, sizes, seed, dtype, force) | {"seed": seed})


def _deliver(run: Run, facts: Mapping[str, Any]) -> None:
    rows = _rows(facts) if run.output.table_wanted() else iter([facts])
    run.output.deliver(rows, COLUMNS, None)


def _rows(facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """The facts as a person reads them."""
    counts = facts["parameters"]
    told = {name: facts[name] for name in ("model", "path", "format", "seed") if name in facts}
    told["size"] = f"{facts['bytes'] / 1e6:,.1f} MB, {', '.join(facts['dtypes'])}"
    told["can"] = ", ".join(facts["can"]) or "nothing by itself"
    told["parameters"] = f"{counts['total']:,}"
    for part, count in counts.items():
        if part != "total":
            told[f"  {part}"] = f"{count:,}{_listed(facts['sizes'].get(part, {}))}"
    for name, extra in facts["extras"].items():
        told[f"with {name}"] = f"{extra['parameters']:,}{_listed(extra['config'])}"
    for file in facts["files"]:
        told[file["name"]] = f"{file['bytes']:,} bytes"
    for name, reason in facts["ignored"].items():
        told[name] = f"ignored: {reason}"
    yield from ({"property": name, "value": str(value)} for name, value in told.items())


def _listed(values: Mapping[str, Any]) -> str:
    told = "".join(f", {name} {value}" for name, value in values.items() if isinstance(value, str | int | float))
    return f" ({told[2:]})" if told else ""
