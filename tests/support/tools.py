"""Programs and libraries that tests use: installed, or unpacked by `make test-setup` from Debian's packages."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

UNPACKED = Path(__file__).parents[2] / ".cache" / "debian" / "usr"


def tool(name: str) -> str | None:
    """The path of a program, None when it is not there."""
    return shutil.which(
        name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", f"{UNPACKED}/bin", f"{UNPACKED}/sbin"])
    )


def library(name: str) -> str | None:
    """The path of a shared library, or its name where the loader finds it; None when it is not there."""
    unpacked = next(UNPACKED.glob(f"lib/*/{name}"), None)
    if unpacked is not None:
        return str(unpacked)
    try:
        ctypes.CDLL(name)
    except OSError:
        return None
    return name
