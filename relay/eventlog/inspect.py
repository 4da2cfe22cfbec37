"""A log as an operator looks at it: what segments there are, whether they are sound, which events they hold.

For the command line. Takes no lock and changes nothing, so it may be used on the log of a running relay; what is being
written just then looks like a torn end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from relay.eventlog.record import Record
from relay.eventlog.repair import last_record
from relay.eventlog.segment import Damage, Handle, Segment, load, load_index, paths, scan, start_of

MAX_SEQ = 1 << 64


@dataclass(frozen=True)
class Summary:
    """A segment in short. Times are microseconds since the epoch; `last_seq` is 0 when it has no record."""

    name: str
    first_seq: int
    last_seq: int
    created_us: int
    last_time_us: int
    bytes: int


@dataclass(slots=True)
class Verdict:
    """What is in a segment after every checksum was looked at.

    `torn` are the bytes after the last whole record: in the newest segment the end of a crash or a write in progress.
    `missing_before`: segments are gone between the one before and this one.
    """

    name: str
    records: int = 0
    damage: list[Damage] = field(default_factory=list)
    torn: int = 0
    missing_before: bool = False

    @property
    def sound(self) -> bool:
        """True when nothing is damaged or missing."""
        return not (self.damage or self.missing_before)


def summaries(directory: Path) -> list[Summary]:
    """The segments of the log in `directory`, oldest first. Raises OSError."""
    found = []
    for segment in _segments(directory):
        end = last_record(segment)
        size = segment.path.stat().st_size
        found.append(Summary(segment.path.name, segment.first_seq, end.last_seq, segment.created_us, end.time_us, size))
    return found


def verify(directory: Path) -> Iterator[Verdict]:
    """Read all of the log and say of each segment whether it is sound. Raises OSError."""
    segments = _segments(directory)
    missing = {
        later.first_seq for earlier, later in pairwise(segments) if later.previous not in (None, earlier.first_seq)
    }
    for segment in segments:
        yield _verdict(segment, newest=segment is segments[-1], missing_before=segment.first_seq in missing)


def events(directory: Path, after_seq: int = 0) -> Iterator[Record]:
    """The log's records with seq > `after_seq`, in order, around damage. Raises OSError."""
    segments = _segments(directory)
    for number, segment in enumerate(segments):
        limit = segments[number + 1].first_seq if number + 1 < len(segments) else MAX_SEQ
        if limit <= after_seq + 1:
            continue
        handle = Handle(segment)
        offset = start_of(handle, after_seq + 1, load_index(segment.path))
        for found in scan(handle, handle.size(), offset, after_seq=segment.first_seq - 1):
            if not isinstance(found, Damage) and after_seq < found[1].seq < limit:
                yield found[1]


def _segments(directory: Path) -> list[Segment]:
    return [load(path) for path in paths(directory)]


def _verdict(segment: Segment, *, newest: bool, missing_before: bool) -> Verdict:
    handle = Handle(segment)
    size = handle.size()
    verdict = Verdict(segment.path.name, missing_before=missing_before)
    for found in scan(handle, size, after_seq=segment.first_seq - 1):
        if isinstance(found, Damage):
            verdict.damage.append(found)
        else:
            verdict.records += 1
    last = verdict.damage[-1] if verdict.damage else None
    if newest and last and not last.out_of_order and last.offset + last.size >= size:
        verdict.torn = verdict.damage.pop().size
    return verdict
