"""The program: `clvp` and `python -m clvp_cli` start here. Knows which commands there are, and nothing else."""

from __future__ import annotations

import gc
import os
import sys
from typing import NoReturn

from .commands import (
    bench,
    codec,
    config,
    extract_mels,
    generate,
    generate_candidates,
    model,
    score,
    tokenize,
    train,
    voice,
)
from .commands.edge import DEBUG, INTERRUPTED, complain, explain, fill_gaps
from .commands.program import app

COMMANDS = (generate, generate_candidates, score, tokenize, extract_mels, voice, codec, train, model, config, bench)

ORDER = [module.__name__ for module in COMMANDS]
app.registered_commands.sort(key=lambda added: ORDER.index(getattr(added.callback, "__module__", "")))


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the program and exit."""
    fill_gaps()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in ours:
        arguments.remove("--debug")
        os.environ[DEBUG] = "1"
    gc.disable()  # loading makes a million objects that stay: looking for cycles among them is a tenth of it
    try:
        code = app(arguments, prog_name="clvp", standalone_mode=False)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(INTERRUPTED)
    except Exception as error:
        # Typer's own complaints about the command line, of whatever version: they carry a message and a code.
        if os.environ.get(DEBUG):
            raise
        if not hasattr(error, "format_message"):
            from .io.streams import silence_stdout

            silence_stdout()  # what could not be written would be tried again at the end
            sys.exit(explain(error))
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help itself
            print(error.format_message(), file=sys.stderr)
            sys.exit(2)
        complain(error.format_message(), f"{context.command_path if context else 'clvp'} --help")
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
