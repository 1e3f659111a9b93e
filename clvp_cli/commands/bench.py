"""`clvp bench`: what the models are worth, measured."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .options import CONFIG, MODEL, NORMALIZER, SAMPLING, SCORING, SEED, Out, Run, command
from .outputs import check_records_output
from .program import app

bench = typer.Typer(help="Measure speed and quality.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bench, name="bench")


@command(bench, "mini", MODEL, SEED, SAMPLING, SCORING, NORMALIZER, CONFIG)
def mini(
    run: Run,
    data: Annotated[
        Path, typer.Option("--data", help="Held-out speech: a directory with manifest.tsv; its dev/ sets are used.")
    ],
    only: Annotated[
        str | None,
        typer.Option("--only", help="Of retrieval,damage,codec,best-of-n,voice,time; all.", show_default=False),
    ] = None,
    limit: Annotated[
        int, typer.Option("--limit", min=0, help="Clips of each set, and sentences, at most; 0: all.")
    ] = 0,
    out: Out = None,
    save_candidates: Annotated[
        str | None,
        typer.Option(
            "--save-candidates", help="Every candidate of best-of-n with its judgements (.jsonl).", show_default=False
        ),
    ] = None,
) -> None:
    """Every figure of the model card, each with its n and a 95 % interval, from speech that nothing was trained on.

    \b
    clvp bench mini --data ../shared/data --table
    clvp bench mini --data ../shared/data --only retrieval,damage --limit 20 -o figures.jsonl
    """
    from ..bench.figures import COLUMNS
    from ..bench.mini import chosen_parts, evaluate
    from ..io.jsonl import dump_record
    from ..io.streams import atomic_write

    check_records_output(out)
    check_records_output(save_candidates)
    chosen_parts(only)
    clvp = run.clvp()
    clvp.check_ranking()
    with atomic_write(save_candidates, "w") if save_candidates else nullcontext() as file:

        def keep(record: dict[str, object]) -> None:
            if file is not None:
                file.write(dump_record(record) + "\n")

        records = (figure.record() for figure in evaluate(clvp, data, only, limit, keep))
        run.deliver(records, COLUMNS, out, to_the_end=True)
