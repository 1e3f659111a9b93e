"""The Typer program that commands add themselves to, and the options of the program itself."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    name="clvp",
    help="""Best-of-N speech: generate, judge and rank speech candidates with CLVP.

    \b
    clvp generate -t "A sentence to say." -r voice.wav -n 16 -o best.npz --wav best.wav
    clvp generate-candidates -t "A sentence." -r voice.wav -o - | clvp score - -t "A sentence."
    clvp score candidates.npy -t "What they should say." -k 1
    cat lines.txt | clvp tokenize -f -
    """,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        import clvp_cli

        print(f"clvp {clvp_cli.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool | None, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks. Taken anywhere on the line.")] = False,
) -> None:
    """Options of the program itself."""
