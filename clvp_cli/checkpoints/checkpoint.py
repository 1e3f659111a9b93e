"""An opened model on disk: its configuration, what is there, and its tensors, mapped only when asked for.

Whatever the format, names are the published layout's. Torch-free until data is asked for. Knows no format by name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import ClvpConfig
from ..errors import CheckpointError
from .layout import PARTS, SCALE, derived_shapes, derived_tables, parts_in
from .tensors import TensorInfo, TensorStore

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

# Models beside the main one: subdirectories of these names, or Tortoise's files.
EXTRAS: Mapping[str, str | None] = {
    "codec": "dvae.pth",
    "alignment": None,
    "phones": None,  # what the training of the others learns from: beside no model that speaks
    "cvvp": "cvvp.pth",
    "random_voice": "rlg_auto.pth",
}
GROUP_BYTES = 8 * 2**20  # mapped at a time while casting: bounds what is held beside the cast weights
ABILITY = {
    "conditioning": "read a voice",
    "decoder": "generate candidates",
    "text": "score candidates",
    "speech": "score candidates",
}


@dataclass(frozen=True)
class Extra:
    """A model beside the main one: its configuration (a plain mapping), and its state in this project's names."""

    name: str
    path: Path
    format: str  # "hf": a subdirectory with config.json; "tortoise": one of Tortoise's files
    config: Mapping[str, Any]
    store: TensorStore = field(repr=False)

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """What is there, without its data."""
        return self.store.infos

    def state(self) -> dict[str, Tensor]:
        """All its tensors, mapped from disk."""
        return self.store.tensors(self.store.infos)


@dataclass(frozen=True)
class Checkpoint:
    """A model on disk, opened and checked, in the published layout whatever its format."""

    path: Path
    format: str  # "hf" or "tortoise"
    config: ClvpConfig
    store: TensorStore = field(repr=False)
    extras: Mapping[str, Extra] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)  # files that are none of ours → why

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        """Name → type and shape of every tensor, without data."""
        return self.store.infos

    @property
    def parts(self) -> tuple[str, ...]:
        """Which of conditioning, decoder, text, speech are there."""
        return parts_in(self.store.infos)

    def require(self, *parts: str) -> None:
        """Raise CheckpointError unless all these parts are there; the message says what the rest can do."""
        lacking = [part for part in parts if part not in self.parts]
        if lacking:
            able = sorted({ABILITY[part] for part in self.parts})
            lost = sorted({ABILITY[part] for part in lacking})
            raise CheckpointError(
                f"{self.path}: no {' and no '.join(lacking)} weights: this model cannot {' or '.join(lost)}",
                f"it can {' and '.join(able)}; put the missing weights beside these for the rest" if able else None,
            )

    def state(self, prefixes: Iterable[str] = ("",)) -> dict[str, Tensor]:
        """The tensors whose names begin with one of `prefixes`, or of these parts, mapped from disk.

        The encoders bring logit_scale with them; derived tables are left out.

        Raises:
            CheckpointError: a part asked for is not here, or a derived table is not what the configuration makes it.
        """
        return dict(self.stream(prefixes))

    def stream(self, prefixes: Iterable[str] = ("",)) -> Iterator[tuple[str, Tensor]]:
        """`state`, tensor by tensor: a consumer that drops each one holds little of the file in memory at a time."""
        wanted = [PARTS.get(prefix, prefix) for prefix in prefixes]
        self.require(*(part for part in PARTS if PARTS[part] in wanted))
        if PARTS["text"] in wanted or PARTS["speech"] in wanted:
            wanted.append(SCALE)
        derived = derived_shapes(self.config)
        names = [name for name in self.store.infos if name.startswith(tuple(wanted))]
        self._check_derived([name for name in names if name in derived])
        yield from read_grouped(self.store, [name for name in names if name not in derived])

    def load_into(
        self,
        module: nn.Module,
        prefix: str,
        dtype: torch.dtype | None = None,
        device: str = "cpu",
        *,
        keep_rounded: bool = False,
    ) -> nn.Module:
        """Fill a module made on the meta device from the names under `prefix`; see `load_module`."""
        from .modules import load_module

        pairs = (
            (name.removeprefix(prefix), tensor) for name, tensor in self.stream([prefix]) if name.startswith(prefix)
        )
        return load_module(module, pairs, dtype, device, f"{self.path}: {prefix or 'all'}", keep_rounded)

    def _check_derived(self, names: Sequence[str]) -> None:
        if not names:
            return
        formula = derived_tables(self.config)
        for name, tensor in self.store.tensors(names).items():
            tolerance = 1e-5 if tensor.element_size() >= 4 else 1e-2  # halves round the table
            if not tensor.float().allclose(formula[name], rtol=tolerance, atol=1e-6):
                raise CheckpointError(
                    f"{self.path}: {name} is not the table the configuration makes",
                    "this model rotates positions in a way that is not read here",
                )


def read_grouped(store: TensorStore, names: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors, in files' order, mapped about GROUP_BYTES at a time: a group unmaps as the next one comes."""
    group: list[str] = []
    held = 0
    for name in names:
        group.append(name)
        held += store.infos[name].nbytes
        if held >= GROUP_BYTES:
            yield from _emptied(store.tensors(group))
            group, held = [], 0
    yield from _emptied(store.tensors(group))


def _emptied(tensors: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Hand tensors out, keeping none."""
    for name in list(tensors):
        yield name, tensors.pop(name)
