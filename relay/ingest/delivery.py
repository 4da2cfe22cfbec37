"""One event on its way through a partition, and the ways in which its judgement can end.

Made by the intake, judged by the gate, carried by the partition. Pure data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from relay.atproto.frames import Event
from relay.hosts.host import Host
from relay.ingest.check import Check
from relay.ingest.stopwatch import Stopwatch
from relay.kit.errors import RelayError


class Errand(Enum):
    """Something an account's events have to wait for."""

    IDENTITY = "identity"  # the DID document is not in memory
    REFRESH = "refresh"  # the DID document disagrees with the host or the signature: it may be outdated
    STATUS = "status"  # the account is stored as inactive: its PDS may say otherwise
    COOL_DOWN = "cool-down"  # the account sent too much that was invalid


@dataclass(slots=True, eq=False)
class Item:
    """An event from `host`, `size` bytes long. `done` holds the errands run for it, so that each is run once; `watch`
    times it through the stages, if it is one of those that are timed; `check` is its verification by a worker process.
    """

    host: Host
    event: Event
    size: int
    done: frozenset[Errand] = frozenset()
    watch: Stopwatch | None = None
    check: Check | None = None


class Rejected(RelayError):
    """The event is dropped, for a counted reason."""


class Unverified(Exception):
    """The event's `check` has no outcome yet. It is judged again, as a whole, when there is one."""


class Hold(Exception):
    """The event, and every later one of its account, waits for an errand and is judged again."""

    def __init__(self, errand: Errand) -> None:
        super().__init__(errand.value)
        self.errand = errand
