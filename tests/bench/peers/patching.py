"""Lines of another relay's sources that have to be others in a network on loopback, replaced before it is built.

Used by `indigo` and `rsky`. A line that is not as expected stops the comparison: the sources are of another version.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

# (file below the sources, what stands there once, what is to stand there)
Patch = Sequence[tuple[str, str, str]]


def replace_lines(sources: Path, patch: Patch, whose: str, written_in: Path) -> None:
    """Replace what `patch` says. Raises ValueError with the line that does not fit.

    For a build that goes by times, a file has changed when it did, or when the patch did, which is `written_in` a file.
    """
    for file, before, after in patch:
        path = sources / file
        text = path.read_text() if path.exists() else ""
        if text.count(before) != 1:
            raise ValueError(f"{whose} is of another version: {file} has {text.count(before)} times {before!r}")
        changed = max(path.stat().st_mtime_ns, written_in.stat().st_mtime_ns)
        path.write_text(text.replace(before, after))
        os.utime(path, ns=(changed, changed))
