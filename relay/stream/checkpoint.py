"""Keeps a copy of the hosts' cursors, and of whose past is hidden, beside the log: with an old database a start would
otherwise have to find them in all of the log.

Written by the stream as it runs and when it stops, read by recovery. A checkpoint is a hint: one that the log does not
bear out, or SQL is past, is not used. The file's layout is in `docs/log-format.md`. Must not know of SQL.
"""

from __future__ import annotations

import logging
import struct
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import gevent
from google_crc32c import value as crc32c

from relay.eventlog import disk
from relay.kit.background import Loop
from relay.stream.disk_thread import DiskThread

NAME = "checkpoint"
EVERY_SECONDS = 10.0

_HEAD = struct.Struct("<8sQQII")
_CRC = struct.Struct("<I")
_MAGIC = b"ATRELAYC"

log = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """What was so when the log's record `position` had been published, and none after it.

    A start scans the log from `replay_from` for what is ahead of the cursors: host id -> (position, the log's seq after
    which the host's records have its present numbers). `hidden` is uid -> the seq below which its events are hidden.
    """

    position: int
    replay_from: int
    cursors: dict[int, tuple[int, int]]
    hidden: dict[int, int]


def store(directory: Path, found: Checkpoint) -> None:
    """Replace the checkpoint in `directory`, durable on return. Raises OSError."""
    cursors = array("q", (value for host_id, cursor in found.cursors.items() for value in (host_id, *cursor)))
    hidden = array("q", (value for pair in found.hidden.items() for value in pair))
    head = _HEAD.pack(_MAGIC, found.position, found.replay_from, len(found.cursors), len(found.hidden))
    data = b"".join((head, cursors.tobytes(), hidden.tobytes()))
    disk.replace(directory / NAME, data + _CRC.pack(crc32c(data)))


def load(directory: Path) -> Checkpoint | None:
    """The checkpoint in `directory`; None when there is none or it is damaged. Raises OSError."""
    try:
        data = (directory / NAME).read_bytes()
    except FileNotFoundError:
        return None
    body, crc = data[: -_CRC.size], data[-_CRC.size :]
    if len(body) < _HEAD.size or crc != _CRC.pack(crc32c(body)):
        log.warning("the file %s is damaged, and is not used", NAME)
        return None
    magic, position, replay_from, hosts, accounts = _HEAD.unpack_from(body)
    values = array("q", body[_HEAD.size :])
    if magic != _MAGIC or len(values) != 3 * hosts + 2 * accounts:
        return None
    split = 3 * hosts
    cursors = {values[i]: (values[i + 1], values[i + 2]) for i in range(0, split, 3)}
    return Checkpoint(position, replay_from, cursors, dict(zip(values[split::2], values[split + 1 :: 2], strict=True)))


class Checkpoints:
    """Writes checkpoints into `directory`. `take` gives what is so now; `position` is where the last one stands."""

    def __init__(self, directory: Path, take: Callable[[], Checkpoint], position: int) -> None:
        self._directory = directory
        self._take = take
        self._position = position
        self._disk = DiskThread(NAME)
        self._loop = Loop("checkpoint", self._pass, EVERY_SECONDS)

    @property
    def problem(self) -> str | None:
        """That the disk does not answer, in words, or None."""
        return self._disk.problem

    def start(self) -> None:
        """Write one every ten seconds, if anything was logged meanwhile."""
        self._loop.start(after=EVERY_SECONDS)

    def stop(self, timeout: float) -> None:
        """Write the last one, unless the disk takes longer than `timeout` seconds: then the one before stays."""
        self._loop.stop()
        gevent.with_timeout(timeout, self._pass, timeout_value=None)

    def write(self) -> None:
        """Write one now."""
        found = self._take()
        try:
            self._disk.run(store, self._directory, found)
        except OSError as error:
            # The disk is full, or broken: the log says so. The one before this stays.
            log.debug("%s is not written: %s", NAME, error)
        else:
            self._position = found.position

    def _pass(self) -> None:
        if self._take().position > self._position:
            self.write()
