"""Which accounts' past events must no longer be handed out: those taken down or deleted.

Marked and lifted by the group commit when the `#account` event that says so is published, consulted by everything that
hands out events, and written to SQL by the projector. Must not know of frames or files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from operator import itemgetter

from relay.atproto.frames import Kind
from relay.eventlog.record import FLAG_HIDES, FLAG_REVEALS, Record
from relay.kit import metrics


class Suppressions:
    """`before` is uid -> log seq: that account's commit, sync and identity events below it are hidden.

    Bounded by the `#account` events in the replay window, since what is out of it is forgotten; an entry takes some
    100 bytes.
    """

    def __init__(self) -> None:
        # How often a mark was set, and lifted: whoever keeps something that depends on the marks compares.
        self.marked = 0
        self.lifted = 0
        self.before: dict[int, int] = {}
        self._watchers: list[Callable[[int, int | None], None]] = []
        metrics.SUPPRESSED_ACCOUNTS.set_function(lambda: len(self.before))

    def restore(self, before: Mapping[int, int]) -> None:
        """Take over what SQL says, at the start."""
        self.before.update(sorted(before.items(), key=itemgetter(1)))

    def marks(self) -> dict[int, int]:
        """uid -> seq, as it is now."""
        return dict(self.before)

    def watch(self, changed: Callable[[int, int | None], None]) -> None:
        """Have `changed(uid, before_seq)` called after each change, with None when the mark is lifted."""
        self._watchers.append(changed)

    def apply(self, record: Record) -> None:
        """What a published `#account` record says about its account's past."""
        if record.flags & FLAG_HIDES:
            # Taken out first, so that the entries stay in the order of their seqs.
            self.before.pop(record.uid, None)
            self.before[record.uid] = record.seq
            self._tell(record.uid, record.seq)
        elif record.flags & FLAG_REVEALS:
            self._remove(record.uid)

    def forget_before(self, first_seq: int) -> None:
        """Drop the marks that no longer hide anything, now that the log begins at `first_seq`."""
        while self.before:
            uid, before_seq = next(iter(self.before.items()))
            if before_seq > first_seq:
                return
            self._remove(uid)

    def hides(self, uid: int, seq: int, kind: int) -> bool:
        """True when the event may not be handed out."""
        return seq < self.before.get(uid, 0) and kind != Kind.ACCOUNT

    def shown(self, records: Iterable[Record]) -> Iterator[bytes]:
        """The frames of the records that may be handed out: as `hides` says, without a call for each."""
        before = self.before.get
        account = Kind.ACCOUNT
        return (record.frame for record in records if record.seq >= before(record.uid, 0) or record.kind == account)

    def _remove(self, uid: int) -> None:
        if self.before.pop(uid, None) is not None:
            self._tell(uid, None)

    def _tell(self, uid: int, before_seq: int | None) -> None:
        if before_seq is None:
            self.lifted += 1
        else:
            self.marked += 1
        for changed in self._watchers:
            changed(uid, before_seq)
