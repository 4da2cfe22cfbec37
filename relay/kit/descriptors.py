"""Keeps some file descriptors free for the log and SQL: a connection that would take one of the last is not made.

Asked with each new connection by `net` and `web`. The kernel gives out the lowest number that is free, so a new
descriptor's number tells how many there are at least.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import time

from relay.kit.limits import Tally

RESERVED = 64
SECONDS_BETWEEN_LINES = 60.0

EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})

log = logging.getLogger(__name__)
_lines: Tally[str] = Tally(SECONDS_BETWEEN_LINES, 1)


def spare(fd: int) -> bool:
    """False, and a line in the log once a minute, when `fd` is one of those kept for the log and SQL."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if fd < limit - min(RESERVED, limit // 4):
        return True
    say_exhausted(limit)
    return False


def some_left() -> bool:
    """Whether one more may be taken for a connection; takes one for a moment. Says so in the log when not."""
    try:
        taken = os.eventfd(0)
    except OSError as error:
        if error.errno not in EXHAUSTED:
            raise
        say_exhausted()
        return False
    try:
        return spare(taken)
    finally:
        os.close(taken)


def say_exhausted(limit: int | None = None) -> None:
    """Say in the log, once a minute, that there are none left."""
    if _lines.add("", time.monotonic()) == 1:
        of = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
        log.error("out of file descriptors (LimitNOFILE is %d): new connections are refused", of)


def exhausted() -> OSError:
    """What is raised in the place of a connection that is not made."""
    return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
