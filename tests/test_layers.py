"""The rooms of the package, and that every import goes strictly down: read from the source, nothing is run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "clvp_cli"

# Highest first. A module imports from its own room and from rooms of lower floors alone.
FLOORS: list[set[str]] = [
    {"__main__"},
    {"commands"},
    {"training", "bench", "published"},
    {"pipeline", "modelcare"},
    {"core"},  # what the pipeline and modelcare share of a model
    {"checkpoints", "generation", "signals"},
    {"model"},
    {"text", "audio", "ranking", "io", "native"},
    {"settings", "config", "records", "fields"},
    {"locate"},
    {"documents"},
    {"errors"},
]
FLOOR = {room: height for height, floor in enumerate(reversed(FLOORS)) for room in floor}

# Narrower than the floors.
ONLY = {
    "model": {"config", "errors", "native"},
    "commands": {
        "training",
        "bench",
        "pipeline",
        "modelcare",
        "core",
        "text",
        "audio",
        "io",
        "records",
        "settings",
        "errors",
    },
    "ranking": {"records", "errors"},
}


def modules() -> dict[str, Path]:
    """Dotted name below the package → file."""
    files = sorted(PACKAGE.rglob("*.py"))
    return {".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): file for file in files}


def room_of(module: str) -> str:
    """ "model.layers" → "model"."""
    return module.split(".")[0]


def imports(module: str, file: Path) -> set[str]:
    """The package's own modules that a module imports anywhere, type checking included; dotted, below the package."""
    package = module.split(".") if file.name == "__init__.py" else module.split(".")[:-1]
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {
                alias.name.removeprefix("clvp_cli.") for alias in node.names if alias.name.startswith("clvp_cli.")
            }
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1] + (node.module or "").split(".")
            elif (node.module or "").split(".")[0] == "clvp_cli":
                base = (node.module or "").split(".")[1:]
            else:
                continue
            base = [part for part in base if part]
            found |= {".".join(base)} if base else {alias.name for alias in node.names}
    return found - {""}


EVERY = {name: file for name, file in modules().items() if name != "__init__"}


def test_every_module_is_in_a_room_with_a_floor() -> None:
    """No module stands outside the house."""
    assert {room_of(name) for name in EVERY} - set(FLOOR) - {"assets"} == set()


@pytest.mark.parametrize("name", EVERY)
def test_imports_go_strictly_down(name: str) -> None:
    """A module imports from its own room and from lower floors, never upwards or sideways."""
    room = room_of(name)
    seen = {found for found in imports(name, EVERY[name]) if room_of(found) != room}
    upwards = sorted(found for found in seen if FLOOR[room_of(found)] >= FLOOR[room])
    assert upwards == [], f"{name} may not import {upwards}"


@pytest.mark.parametrize("name", [name for name in EVERY if room_of(name) in ONLY])
def test_narrow_rooms_see_only_what_they_are_allowed(name: str) -> None:
    """The model knows its configuration and errors; commands go through the pipeline and the library."""
    room = room_of(name)
    seen = {room_of(found) for found in imports(name, EVERY[name])} - {room}
    assert seen <= ONLY[room], f"{name} may not import {sorted(seen - ONLY[room])}"


def test_commands_never_touch_tensors() -> None:
    """No command imports torch: what needs it lies below."""
    for name in (name for name in EVERY if room_of(name) == "commands"):
        tree = ast.parse(EVERY[name].read_text(encoding="utf-8"))
        named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
        assert not {module for module in named if module.split(".")[0] in ("torch", "safetensors")}, name


def test_the_package_itself_imports_nothing() -> None:
    """`import clvp_cli` reads no module of the package, and type checkers are told of each name that it loads later."""
    import clvp_cli

    body = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8")).body
    (checked,) = [node for node in body if isinstance(node, ast.If)]
    assert ast.unparse(checked.test) == "TYPE_CHECKING"
    told = {
        alias.asname: str(node.module)
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == clvp_cli._MODULES
    assert not [node for node in body if isinstance(node, ast.ImportFrom) and node.level]
