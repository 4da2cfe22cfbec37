"""Programs that tests run: installed ones, or those that `make test-setup` unpacked from Debian's packages."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

UNPACKED = Path(__file__).parents[2] / ".cache" / "debian" / "usr"


def tool(name: str) -> str | None:
    """The path of a program, None when it is not there."""
    return shutil.which(
        name, path=os.pathsep.join([os.environ["PATH"], "/usr/sbin", f"{UNPACKED}/bin", f"{UNPACKED}/sbin"])
    )
