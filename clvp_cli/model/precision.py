"""Which arithmetic a model runs in: from the name a person gives, or "auto", to what weights become and flow in.

Knows the machine and the model's size; no files, no settings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from .. import native
from ..errors import UsageError
from .products import OURS, Kind, can_pack, flowing, halves, has_tiles, multiplies_whole_numbers, processor_has

# A model with fewer parameters is done in milliseconds and fits into caches: halving its weights gains nothing.
WORTH_HALVING = 50_000_000


@dataclass(frozen=True)
class Precision:
    """What runs: the name ("bfloat16", "int8", …), how products are packed, and the type of activations."""

    name: str
    kind: Kind
    dtype: torch.dtype

    @property
    def kernels(self) -> str:
        """Whose kernels multiply: "clvp" or "torch"."""
        return "clvp" if self.kind in ("int8", *OURS) and native.kernels() else "torch"


def precision(name: str, device: torch.device, parameters: int) -> Precision:
    """The arithmetic of that name on a device, for a model of so many parameters.

    "auto" is float32 for a model too small to gain; bfloat16 where a GPU, AMX or AVX512-BF16 multiplies it, but for our
    kernels with AVX512-VNNI, which are as fast as the last in int8; int8 where those or FBGEMM are (x86). int8 and int4
    run on CPUs alone; UsageError elsewhere.
    """
    packs = can_pack(device)
    if name == "auto":
        name = _fastest(device) if parameters >= WORTH_HALVING else "float32"
    if name in ("int8", "int4"):
        if not packs:
            raise UsageError(f"--dtype {name} runs on a CPU with oneDNN alone", "use --device cpu, or bfloat16")
        kind: Kind = "int8" if name == "int8" else "int4"
        return Precision(name, kind, flowing(kind, torch.float32))
    dtype: torch.dtype = getattr(torch, name)
    if not packs:
        return Precision(name, "plain", dtype)
    if dtype != torch.float32:
        return Precision(name, *halves(dtype))
    return Precision(name, "full" if native.kernels() and not native.is_outdone() else "packed", dtype)


def _fastest(device: torch.device) -> str:
    """The fastest type, of those whose results are shown to agree with float32's (README, Speed)."""
    if multiplies_halves(device) and (device.type != "cpu" or has_tiles() or not native.is_wide()):
        return "bfloat16"
    if not can_pack(device):
        return "float32"
    return "int8" if multiplies_whole_numbers() else "float32"


def multiplies_halves(device: torch.device) -> bool:
    """Whether a device has instructions for products in bfloat16."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and (has_tiles() or processor_has("avx512_bf16"))
