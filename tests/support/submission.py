"""An entry for the log made in one call, for tests and benches that have no lanes and no gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from relay.atproto.frames import Kind
from relay.store.accounts import AccountRow, RepoRow
from relay.stream.sequencer import Entry


class Submission(Entry):
    """An entry that calls `finished` when it is logged."""

    __slots__ = ("finished",)

    def __init__(
        self,
        kind: Kind,
        uid: int,
        host_id: int,
        upstream_seq: int,
        status: int,
        head: bytes,
        tail: bytes,
        account: AccountRow | None,
        repo: RepoRow | None,
        finished: Callable[[], None] | None,
        hides: bool = False,
        collections: Mapping[str, bool | None] | None = None,
    ) -> None:
        # One is made for each event, so nothing is set twice.
        self.kind = kind
        self.uid = uid
        self.host_id = host_id
        self.upstream_seq = upstream_seq
        self.status = status
        self.head = head
        self.tail = tail
        self.account = account
        self.repo = repo
        self.collections = collections
        self.hides = hides
        self.reveals = False
        self.own_status = None
        self.finished = finished

    def logged(self) -> None:
        """Tell whoever submitted it."""
        if self.finished is not None:
            self.finished()
