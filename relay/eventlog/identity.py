"""Which log this is: a random name in its folder that goes where the log goes, and the logs whose place it took.

Read and made when a database is claimed for the log. Must not know of databases.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from relay.eventlog import disk

NAME = "identity"
# How many of the logs that this one took the place of are remembered.
KEPT = 20


def load(directory: Path) -> tuple[str, ...]:
    """The identity of the log in `directory`, then those of its forerunners; empty when it has none. Raises OSError."""
    try:
        return tuple((directory / NAME).read_text("ascii").split())
    except FileNotFoundError:
        return ()


def make(directory: Path, forerunners: Sequence[str] = ()) -> tuple[str, ...]:
    """Give the log in `directory` a new identity, durable on return. Raises OSError."""
    names = (secrets.token_hex(8), *forerunners)[:KEPT]
    disk.replace(directory / NAME, "".join(f"{name}\n" for name in names).encode("ascii"))
    return names
