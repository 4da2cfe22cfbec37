"""What is found of a log when it is opened, and what that decides: where it ends, and which seq comes next.

Asked by `log` alone, once for each opening. Changes nothing in the folder, and must not know how a log is written.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from relay.eventlog import high_water, repair
from relay.eventlog.high_water import RESERVE, GivenOut, HighWater
from relay.eventlog.repair import End, Examined
from relay.eventlog.segment import Segment
from relay.kit import metrics
from relay.kit.errors import LogError

# A log and a database may both have gone back to the same moment, with a machine's snapshot. As many seqs are passed
# over as the network could have needed since the newest record.
OLD_US = 300_000_000
SEQS_PER_SECOND = 5_000

log = logging.getLogger(__name__)


def lock(directory: Path) -> int:
    """The file descriptor that holds the folder for this process. Raises LogError `log-locked`, OSError."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise LogError("log-locked", f"{directory} is in use by another relay") from None
    return fd


def warn_of_missing(segments: Sequence[Segment]) -> None:
    """Say and count where segments between others are gone."""
    for earlier, later in pairwise(segments):
        if later.previous not in (None, earlier.first_seq):
            metrics.LOG_DAMAGE.inc()
            log.error("segments between %s and %s are missing", earlier.path.name, later.path.name)


def is_in_doubt(before: HighWater | None, segments: Sequence[Segment]) -> bool:
    """True when events may have been published that the log no longer has. `before`: the mark of the last run."""
    if before is None:
        return bool(segments)
    newest = segments[-1].first_seq if segments else 0
    return before.segment > newest or not (before.clean or before.synced)


def examine_end(segments: list[Segment]) -> tuple[End, list[tuple[Segment, Examined | None]]]:
    """Where the log ends, and what is to be repaired. Those without any record are to be removed, and no longer among
    `segments`.
    """
    next_seq = 0
    repairs: list[tuple[Segment, Examined | None]] = []
    while segments:
        segment = segments[-1]
        found = None if next_seq else repair.examine(segment)
        end = found.end if found else repair.last_record(segment)
        next_seq = max(next_seq, end.next_seq)
        if end.last_seq:
            if found:
                repairs.append((segment, found))
            return end._replace(next_seq=next_seq), repairs
        repairs.append((segment, None))
        segments.pop()
    return End(0, 0, next_seq), repairs


def next_seq(directory: Path, before: HighWater | None, *, in_doubt: bool, end: int, lowest: int, quiet_us: int) -> int:
    """The seq of the next event: past all that may have been given out.

    `end` is what the log itself says, `lowest` what it must not be below; `quiet_us` is how old the newest event is.
    """
    try:
        given = high_water.load_given_out(directory) or GivenOut(0, running=False)
    except ValueError:
        given, in_doubt = GivenOut(0, running=False), True
    in_doubt = in_doubt or (given.running and given.next_seq > end)
    seq = max(end, lowest, given.next_seq)
    if quiet_us > OLD_US:
        gap = quiet_us // 1_000_000 * SEQS_PER_SECOND
        log.info("the newest event is %d s old: %d seqs are passed over", quiet_us // 1_000_000, gap)
        seq += gap
    if in_doubt:
        log.warning("which seqs were given out is in doubt: a million after %d are passed over", seq - 1)
        seq += RESERVE
    if before is not None and (in_doubt or before.clean):
        seq = max(seq, before.reserved)
    return seq
