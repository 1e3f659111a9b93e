"""Every option once: its flag, its help, and the setting it sets; and how a command becomes part of the program.

A command is a function whose first parameter is a `Run`; the option groups it names are added to its own parameters,
so that no option block is written twice. Light on purpose: `clvp --help` reads this and must not load numpy or torch.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import ClvpError, RowsFailedError, UsageError
from .edge import translated
from .render import Output

if TYPE_CHECKING:
    from ..pipeline import Clvp
    from ..settings import Resolved, Settings


class Flag(NamedTuple):
    """One shared option: its annotation for Typer, and the dotted setting it sets (None: not a setting)."""

    annotation: Any
    setting: str | None = None


log = logging.getLogger("clvp")

FILES = {"out", "text_file", "references", "candidates", "audio", "codes", "save_candidates", "latents", "wav"}
METAVARS = {str: "NAME", int: "N", float: "X"}


def _flag(kind: Any, *names: str, help: str, setting: str | None = None, **more: Any) -> Flag:
    more.setdefault("metavar", METAVARS[kind])
    return Flag(Annotated[kind | None, typer.Option(*names, help=help, show_default=False, **more)], setting)


Group = Mapping[str, Flag]

OUTPUT: Group = {
    "json": Flag(Annotated[bool, typer.Option("--json", help="Records as JSONL on stdout even at a terminal.")]),
    "table": Flag(Annotated[bool, typer.Option("--table", help="Records as a table even in a pipe.")]),
    "quiet": Flag(Annotated[bool, typer.Option("-q", "--quiet", help="Errors only on stderr.")]),
    "verbose": Flag(Annotated[bool, typer.Option("-v", "--verbose", help="Say more on stderr.")]),
}
STRICT: Group = {
    "strict": Flag(Annotated[bool, typer.Option("--strict", help="Exit with 3 if any row failed.")]),
}
CONFIG: Group = {
    "config": Flag(
        Annotated[
            list[str] | None,
            typer.Option(
                "-c",
                "--config",
                metavar="CONFIG",
                help="A YAML file, or a shipped one by name (hf, tortoise, fast, …). Repeatable.",
            ),
        ]
    ),
}
MODEL: Group = {
    "model": _flag(
        str,
        "-m",
        "--model",
        help="mini, a directory, or a hub id in the local cache.",
        metavar="MODEL",
        setting="model",
    ),
    "device": _flag(str, "--device", help="auto | cpu | cuda | mps", setting="device"),
    "dtype": _flag(str, "--dtype", help="auto | float32 | bfloat16 | float16 | int8 | int4", setting="dtype"),
    "batch_size": _flag(int, "--batch-size", help="Rows at once: memory only, never the result.", setting="batch_size"),
}
SEED: Group = {"seed": _flag(int, "--seed", help="Candidate i depends on (seed, i) alone.", setting="seed")}
NORMALIZER: Group = {
    "normalizer": _flag(str, "--normalizer", help="english | hf | tortoise", setting="text.normalizer"),
}
SAMPLING: Group = {
    "n": _flag(int, "-n", "--candidates", help="Candidates of each text (16).", setting="sampling.n"),
    "temperature": _flag(
        float, "--temperature", help="Below 1 keeps to what is probable (0.8).", setting="sampling.temperature"
    ),
    "top_p": _flag(float, "--top-p", help="Nucleus mass; 1 is off (0.8).", setting="sampling.top_p"),
    "top_k": _flag(int, "--top-k", help="Codes kept; 0 is off (50).", setting="sampling.top_k"),
    "typical_p": _flag(float, "--typical-p", help="Typical sampling mass; 1 is off.", setting="sampling.typical_p"),
    "repetition_penalty": _flag(
        float, "--repetition-penalty", help="1 is off (2.0; off when greedy).", setting="sampling.repetition_penalty"
    ),
    "min_codes": _flag(int, "--min-codes", help="No stop before so many codes (0).", setting="sampling.min_codes"),
    "max_codes": _flag(int, "--max-codes", help="Codes at most, 21.5 a second (500).", setting="sampling.max_codes"),
    "greedy": Flag(
        Annotated[bool | None, typer.Option("--greedy", help="The most probable code each time.", show_default=False)],
        "sampling.greedy",
    ),
    "beams": _flag(int, "--beams", help="Beam search of this width; 1 is off.", setting="sampling.beams"),
    "length_penalty": _flag(
        float, "--length-penalty", help="For beam search (1.0).", setting="sampling.length_penalty"
    ),
}
SCORING: Group = {
    "pad": _flag(
        str, "--pad", help="Length candidates are judged at: own | batch | N.", metavar="LENGTH", setting="scoring.pad"
    ),
    "rank_by": _flag(
        str,
        "--rank-by",
        help="What the order follows: clvp, or a sum as alignment+0.2*clvp.",
        metavar="SUM",
        setting="scoring.rank_by",
    ),
}

Text = Annotated[str | None, typer.Option("-t", "--text", metavar="TEXT", help="The text.", show_default=False)]
TextFile = Annotated[
    str | None,
    typer.Option(
        "-f", "--text-file", metavar="FILE", help="One text a line from a file; - is stdin.", show_default=False
    ),
]
Sentences = Annotated[
    bool, typer.Option("--sentences", help="Cut the text, or the whole file, into sentences: each is a text.")
]
References = Annotated[
    list[str] | None,
    typer.Option(
        "-r",
        "--ref",
        metavar="VOICE",
        help="A reference clip, or a saved voice (.npz). Repeatable.",
        show_default=False,
    ),
]
Out = Annotated[
    str | None, typer.Option("-o", "--out", metavar="OUT", help="Where to write; - is stdout.", show_default=False)
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with what an interrupted run left in OUT.jsonl.part.")]
Keep = Annotated[int | None, typer.Option("-k", "--keep", metavar="K", help="Keep the best K.", show_default=False)]


@dataclass(frozen=True)
class Run:
    """What every command is handed: the settings with their origins, where output goes, the model when asked for."""

    resolved: Resolved
    output: Output
    strict: bool

    @property
    def settings(self) -> Settings:
        """The settings of this run."""
        return self.resolved.settings

    def clvp(self) -> Clvp:
        """The model's pipeline; still nothing is loaded."""
        from ..pipeline import Clvp

        return Clvp.load(None, self.settings)

    def deliver(
        self,
        records: Iterable[Mapping[str, Any]],
        columns: Sequence[str],
        out: str | None = None,
        *,
        to_the_end: bool = False,
    ) -> None:
        """Write records out; rows that failed end the command with 3 under --strict, or with 1 if all of them did."""
        total, failed = self.output.deliver(records, columns, out, to_the_end=to_the_end)
        if failed and (self.strict or failed == total):
            kind = RowsFailedError if self.strict else ClvpError
            raise kind(f"{failed} of {total} rows failed", 'each has an "error" in its record')
        if failed:
            log.warning('%d of %d rows failed: each has an "error" in its record', failed, total)


def command(
    app: typer.Typer, name: str, *groups: Group, **more: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `function(run, …)` to `app` as command `name`, with the options of `groups` behind its own."""
    shared: dict[str, Flag] = {}
    for group in (*groups, OUTPUT):
        shared |= group

    def add(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function, eval_str=True).parameters.values())[1:]

        @translated
        def run(**given: Any) -> None:
            _check_names(given)
            common = {key: given.pop(key) for key in shared}
            function(_run(shared, common), **given)

        added = [
            inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=_default(flag), annotation=flag.annotation)
            for key, flag in shared.items()
        ]
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + added
        entry: Any = run  # what Typer reads of it: a name, a help text, and the options
        entry.__name__, entry.__doc__, entry.__module__ = function.__name__, function.__doc__, function.__module__
        entry.__signature__ = inspect.Signature(parameters)
        entry.__annotations__ = {p.name: p.annotation for p in parameters}
        summary = inspect.cleandoc(function.__doc__ or "").partition("\n")[0]
        app.command(name, short_help=summary, **more)(entry)  # whole: Typer would cut it
        return function

    return add


def _check_names(given: dict[str, Any]) -> None:
    """UsageError for a file without a name, as an unset variable of a script leaves it; /dev/stdout is "-"."""
    for key in FILES & given.keys():
        if "" in (given[key] if isinstance(given[key], list) else [given[key]]):
            raise UsageError(f"{key.replace('_', '-')}: an empty file name", "is a variable of the script not set?")
    if given.get("out") in ("/dev/stdout", "/dev/fd/1"):
        given["out"] = "-"  # or records would be written to it twice


def _default(flag: Flag) -> Any:
    return False if flag.annotation.__origin__ is bool else None


def _run(shared: Mapping[str, Flag], common: Mapping[str, Any]) -> Run:
    from ..settings import load_settings  # help needs none

    output = Output(json=common["json"], table=common["table"], quiet=common["quiet"], verbose=common["verbose"])
    output.configure_logging(sys.stderr)
    flags = {flag.setting: common[key] for key, flag in shared.items() if flag.setting}
    return Run(load_settings(common.get("config") or (), flags), output, bool(common.get("strict")))
