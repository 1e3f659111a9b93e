"""`clvp bench`: what the models are worth, measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from .options import CONFIG, MODEL, NORMALIZER, SAMPLING, SCORING, SEED, Out, Run, command
from .outputs import check_file_output, check_records_output
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
        typer.Option("--only", help="Of retrieval,damage,codec,best-of-n,voice,opinion,time; all.", show_default=False),
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


@command(bench, "speed", MODEL, SEED, CONFIG)
def speed(
    run: Run,
    n: Annotated[int, typer.Option("-n", "--candidates", min=1, help="Candidates of one text.")] = 16,
    codes: Annotated[int, typer.Option("--codes", min=2, help="Codes of each candidate.")] = 200,
    repeats: Annotated[int, typer.Option("--repeats", min=1, help="Runs of each figure.")] = 3,
    against: Annotated[
        str | None,
        typer.Option("--against", help="transformers: the same weights in it, in turns.", show_default=False),
    ] = None,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Of load,generate,score,agreement,growth; the first three.", show_default=False),
    ] = None,
    plot: Annotated[
        str | None, typer.Option("--plot", help="A picture of the figures (.png).", show_default=False)
    ] = None,
    out: Out = None,
) -> None:
    """Time generation, scoring and loading, beside what this machine can do at best.

    \b
    clvp bench speed -m MODEL -n 16 --codes 200 --dtype bfloat16
    clvp bench speed -m MODEL --against transformers --plot speed.png -o speed.jsonl
    """
    from ..bench.speed import COLUMNS, measure, planned
    from ..bench.speed_chart import draw, need_matplotlib

    check_records_output(out)
    plan = planned(n, codes, repeats, against, only)
    if plot:
        need_matplotlib()
        check_file_output(plot, ".png")
    made: list[dict[str, object]] = []

    def kept() -> Iterator[dict[str, object]]:
        for record in measure(run.clvp(), plan):
            made.append(record)
            yield record

    run.deliver(kept(), COLUMNS, out, to_the_end=bool(plot))
    if plot:
        draw(made, Path(plot))
