"""indigo's relay: built once with Go into a cache folder.

Used by `tests.bench.peers`. The version can be pinned, so that two machines compare against the same code.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

PACKAGE = "github.com/bluesky-social/indigo/cmd/relay"
BUILD_SECONDS = 900


def built(cache: Path, version: str) -> Path:
    """The binary of that version, built when it is not in the cache. Raises FileNotFoundError without Go."""
    folder = cache / f"indigo-{version}"
    binary = folder / "relay"
    if not binary.exists():
        folder.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "GOBIN": str(folder)}
        subprocess.run(["go", "install", f"{PACKAGE}@{version}"], env=environment, check=True, timeout=BUILD_SECONDS)
    return binary


def build_of(binary: Path) -> str:
    """The module version and the Go version that the binary was built from."""
    shown = subprocess.run(["go", "version", "-m", binary], capture_output=True, text=True, check=True).stdout
    go = shown.split("\n", 1)[0].rsplit(" ", 1)[-1]
    module = next(line.split("\t")[3] for line in shown.splitlines() if line.startswith("\tmod\t"))
    return f"indigo {module}, {go}"
