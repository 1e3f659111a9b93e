"""A file read through a table: from the names it has to the names of the layout wanted, strictly.

A table maps each name a file may have to the name it becomes, to a `Rule` where it becomes several tensors or changes
shape, or to None where it is dropped on purpose. A name in the file that is not in the table is an error, and so is a
name in the table that is not in the file, unless it is dropped. Owns the reading; the tables are the formats' own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError
from .layout import raise_faults
from .tensors import TensorInfo, TensorStore

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MainSizes:
    """What a side model must fit: the decoder's width and the number of codes it speaks; None where not known."""

    width: int | None = None
    codes: int | None = None


@dataclass(frozen=True)
class Rule:
    """One tensor that becomes others: their names, and how (views where they can be: nothing is copied here)."""

    targets: tuple[str, ...]
    transform: Callable[[Tensor], Sequence[Tensor]]


Entries = dict[str, "str | Rule | None"]
Table = Mapping[str, "str | Rule | None"]


class Adapted:
    """A store seen through a table. Raises CheckpointError naming the file where names or shapes do not fit it."""

    def __init__(self, store: TensorStore, table: Table) -> None:
        self.files: Sequence[Path] = store.files
        self._store = store
        check_names(str(store.files[0]), store.infos, table)
        rules = {source: as_rule(entry) for source, entry in table.items() if entry is not None}
        self._rules = rules
        self._source = {target: source for source, rule in rules.items() for target in rule.targets}
        self.infos: dict[str, TensorInfo] = {}
        for source, rule in rules.items():
            self._describe(source, rule)

    def _describe(self, source: str, rule: Rule) -> None:
        import torch

        info = self._store.infos[source]
        try:
            outcome = rule.transform(torch.empty(info.shape, device="meta"))
        except (RuntimeError, ValueError, IndexError):
            raise CheckpointError(f"{self.files[0]}: {source} has an unexpected shape, {list(info.shape)}") from None
        for target, tensor in zip(rule.targets, outcome, strict=True):
            self.infos[target] = TensorInfo(target, info.dtype, tuple(tensor.shape))

    def tensors(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Map the named tensors from the file, transformed."""
        wanted = list(names)
        sources = list(dict.fromkeys(self._source[name] for name in wanted))
        found: dict[str, Tensor] = {}
        for source, tensor in self._store.tensors(sources).items():
            rule = self._rules[source]
            found.update(zip(rule.targets, rule.transform(tensor), strict=True))
        return {name: found[name] for name in wanted}


def check_names(where: str, names: Iterable[str], table: Table) -> None:
    """Raise CheckpointError for names that the table does not know, and for names it needs that are not there."""
    there = set(names)
    unknown = sorted(there - table.keys())
    missing = [name for name, entry in table.items() if entry is not None and name not in there]
    raise_faults(where, {"unknown": unknown, "missing": missing})


def as_rule(entry: str | Rule) -> Rule:
    """A bare name is the tensor as it is."""
    return entry if isinstance(entry, Rule) else Rule((entry,), lambda tensor: (tensor,))


def count(names: Iterable[str], prefix: str) -> int:
    """How many different numbers follow `prefix`: the layers, where they are numbered without gaps."""
    numbers = (name[len(prefix) :].partition(".")[0] for name in names if name.startswith(prefix))
    return len({number for number in numbers if number.isdecimal()})


def same(prefix: str, target: str, *suffixes: str) -> Entries:
    """Entries `prefix.suffix` → `target.suffix`; weight and bias where no suffix is given."""
    return {f"{prefix}.{suffix}": f"{target}.{suffix}" for suffix in suffixes or ("weight", "bias")}


def shape_of(store: TensorStore, name: str, dims: int) -> tuple[int, ...]:
    """The shape of one tensor, from which sizes are read; raises CheckpointError where it is absent or flat."""
    info = store.infos.get(name)
    if info is None:
        raise CheckpointError(f"{store.files[0]}: 1 missing: {name}", "the file is of another kind, or incomplete")
    if len(info.shape) != dims:
        raise CheckpointError(f"{store.files[0]}: {name} has an unexpected shape, {list(info.shape)}")
    return info.shape
