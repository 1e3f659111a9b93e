"""The program: `clvp` and `python -m clvp_cli` start here. Knows which commands there are, and nothing else."""

from __future__ import annotations

import signal
import sys


def main(arguments: list[str] | None = None) -> None:
    """Run the program and exit. Without `arguments` it is the whole process, and handles signals."""
    own = arguments is None
    if own and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # while commands are imported, nothing wants cleaning up
    from .commands.edge import INTERRUPTED, leave, settle_streams, stopped, take, unwind

    if own:
        settle_streams()
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    load_commands()
    try:
        if own:
            take(unwind)
        code = run(arguments)
        if own:
            take(signal.SIG_DFL)
    except KeyboardInterrupt:
        stopped()
        if own:
            take(signal.SIG_DFL)
        code = INTERRUPTED
    leave(code)


def load_commands() -> None:
    """Import the commands, which add themselves to the program, and put them into the order of its help."""
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
    from .commands.program import app

    commands = (generate, generate_candidates, score, tokenize, extract_mels, voice, codec, train, model, config, bench)
    order = [module.__name__ for module in commands]
    app.registered_commands.sort(key=lambda added: order.index(getattr(added.callback, "__module__", "")))


def run(arguments: list[str]) -> int:
    """Run one command line; returns the exit code."""
    import gc
    import os

    from .commands.edge import DEBUG, complain, explain
    from .commands.program import app

    ours = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--debug" in ours:
        arguments.remove("--debug")
        os.environ[DEBUG] = "1"
    gc.disable()  # loading makes a million objects that stay: looking for cycles among them is a tenth of it
    try:
        code = app(arguments, prog_name="clvp", standalone_mode=False)
    except Exception as error:
        # Typer's own complaints about the command line, of whatever version: they carry a message and a code.
        if os.environ.get(DEBUG):
            raise
        if not hasattr(error, "format_message"):
            from .io.streams import silence_stdout

            silence_stdout()  # what could not be written would be tried again at the end
            return explain(error)
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":  # its message is the help itself
            print(error.format_message(), file=sys.stderr)
            return 2
        complain(error.format_message(), f"{context.command_path if context else 'clvp'} --help")
        return int(getattr(error, "exit_code", 2))
    return code if isinstance(code, int) else 0


if __name__ == "__main__":
    main()
