"""indigo's relay: built once with Go into a cache folder, with the line of `PATCH` that lets it dial TLS on loopback.

Used by `tests.bench.peers`. The version can be pinned, so that two machines compare against the same code.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests.bench.peers.patching import replace_lines

MODULE = "github.com/bluesky-social/indigo"
BUILD_SECONDS = 900

# To a host with TLS it dials public addresses only, and ports 80 and 443; to one without, any. Certificates are judged
# as ever.
PATCH = (
    (
        "cmd/relay/relay/slurper.go",
        "netDialer := ssrf.PublicOnlyDialer()",
        "netDialer := ssrf.PublicOnlyDialer()\n\t\tnetDialer.Control = nil",
    ),
)


def built(cache: Path, version: str) -> Path:
    """The binary of that version, built when it is not in the cache. Raises FileNotFoundError without Go, ValueError
    when `PATCH` does not fit or Go fails.
    """
    folder = cache / f"indigo-{version}-patched"
    binary = folder / "relay"
    if not binary.exists():
        shutil.rmtree(folder, ignore_errors=True)
        try:
            _build(folder, version, binary)
        except subprocess.SubprocessError as error:
            raise ValueError(f"indigo could not be built: {error}") from None
    return binary


def _build(folder: Path, version: str, binary: Path) -> None:
    download = ["go", "mod", "download", "-json", f"{MODULE}@{version}"]
    shown = subprocess.run(download, capture_output=True, text=True, check=True, timeout=BUILD_SECONDS).stdout
    module: dict[str, Any] = json.loads(shown)
    # What is in Go's own cache must not be changed.
    shutil.unpack_archive(module["Zip"], folder)
    sources = folder / f"{MODULE}@{module['Version']}"
    replace_lines(sources, PATCH, "indigo", Path(__file__))
    build = ["go", "build", "-buildvcs=false", "-o", str(binary.resolve()), "./cmd/relay"]
    subprocess.run(build, cwd=sources, check=True, timeout=BUILD_SECONDS)


def build_of(binary: Path) -> str:
    """The module version and the Go version that the binary was built from."""
    shown = subprocess.run(["go", "version", binary], capture_output=True, text=True, check=True).stdout
    sources = next(binary.parent.glob(f"{MODULE}@*"))
    return f"indigo {sources.name.partition('@')[2]}, {shown.strip().rsplit(' ', 1)[-1]}"
