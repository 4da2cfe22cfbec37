"""Which log this is: a random name in its folder, made once, that goes where the log goes.

Read and made when a database is claimed for the log. Must not know of databases.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from relay.eventlog.high_water import sync_directory

NAME = "identity"


def load(directory: Path) -> str | None:
    """The identity of the log in `directory`; None when it has none yet. Raises OSError."""
    try:
        return (directory / NAME).read_text("ascii").strip() or None
    except FileNotFoundError:
        return None


def make(directory: Path) -> str:
    """Give the log in `directory` an identity, durable on return. Raises OSError."""
    name = secrets.token_hex(8)
    scratch = directory / f"{NAME}.tmp"
    with scratch.open("w", encoding="ascii") as file:
        file.write(f"{name}\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(scratch, directory / NAME)
    sync_directory(directory)
    return name
