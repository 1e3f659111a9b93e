"""Compiles the kernels when the package is built or installed; a wheel without the kernels works too, more slowly."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

HERE = Path(__file__).resolve().parent
SOURCES = sorted(HERE.glob("*.c"))
FLAGS = ["-O3", "-mavx2", "-mfma", "-mf16c", "-ffp-contract=off", "-fopenmp", "-fPIC", "-shared", "-fvisibility=hidden"]
BUILDS: dict[str, list[str]] = {  # the same sources for processors of two ages; loading.py chooses
    "kernels.so": [],
    "kernels_vnni.so": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512vnni"],
}


def compiled() -> list[str]:
    """The libraries that are there now: on x86-64 Linux, with a C compiler that knows OpenMP."""
    for name in BUILDS:
        (HERE / name).unlink(missing_ok=True)
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if sys.platform != "linux" or platform.machine() != "x86_64" or compiler is None:
        return []
    for name, more in BUILDS.items():
        command = [compiler, *FLAGS, *more, "-o", str(HERE / name), *map(str, SOURCES), "-lm"]
        made = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if made.returncode:
            print(f"clvp's {name} was not compiled, so steps are slower:\n{made.stderr}", file=sys.stderr)
    return [name for name in BUILDS if (HERE / name).is_file()]


class Kernels(BuildHookInterface[Any]):  # type: ignore[misc]
    """Hatchling's hook."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and say that the wheel then is for this platform alone, with any Python 3."""
        if self.target_name == "wheel" and (libraries := compiled()):
            build_data["artifacts"] += [f"clvp_cli/native/{name}" for name in libraries]
            build_data["pure_python"] = False
            build_data["tag"] = "py3-none-" + sysconfig.get_platform().replace("-", "_").replace(".", "_")
