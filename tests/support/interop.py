"""The protocol's interoperability vectors, in the folder that RELAY_INTEROP_DIR names.

Without that folder every function gives nothing, and a test that is parametrized by it is skipped. Must not know what
the vectors say.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

FOLDER = Path(os.environ.get("RELAY_INTEROP_DIR", "nowhere"))


def vectors(name: str) -> list[dict[str, Any]]:
    """The cases of a JSON file."""
    return list(json.loads(_text(name) or "[]"))


def lines(name: str) -> list[str]:
    """The cases of a text file: comments and blank lines left out."""
    return [line for line in _text(name).split("\n") if line and not line.startswith("#")]


def _text(name: str) -> str:
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""
