"""Where an indigo installation's seqs end, so that ours go on above them.

Called once by `app`, before the log is opened. indigo keeps its replay files, `evts-<first seq>`, in the same folder
that our log goes to, and lists them in its database. Reads only; its events cannot be replayed by this relay.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from relay.atproto.fields import MAX_SEQ
from relay.eventlog.high_water import RESERVE
from relay.kit.errors import LogError
from relay.store import installation
from relay.store.database import Database

# flags, kind, length of the body, uid, seq; little-endian
_HEADER = struct.Struct("<IIIQQ")
_PREFIX = "evts-"

log = logging.getLogger(__name__)


class _End(NamedTuple):
    """Where a file ends: `next_seq` comes after its last whole record; `torn` when something follows that."""

    next_seq: int
    torn: bool


def next_seq(db: Database, directory: Path) -> int:
    """The seq after the last one that indigo gave out here, 0 when it never ran.

    After a file that is missing or torn, it leaves a gap: consumers may have seen more than is there. Raises
    StoreError, or LogError `log-io` when a file cannot be read.
    """
    files = dict(_files_in(directory))
    files.update({first_seq: directory / path for path, first_seq in db.read(installation.indigo_log_files)})
    files = {first_seq: path for first_seq, path in files.items() if 0 <= first_seq <= MAX_SEQ}
    if not files:
        return 0
    newest = max(files)
    try:
        end = _end_of(files[newest], newest)
    except FileNotFoundError:
        log.warning("indigo's newest replay file %s is missing: a million seqs are passed over", files[newest])
        return newest + RESERVE
    except OSError as error:
        raise LogError("log-io", f"{files[newest]}: {error}") from error
    return end.next_seq + (RESERVE if end.torn else 0)


def _files_in(directory: Path) -> Iterator[tuple[int, Path]]:
    for path in directory.glob(f"{_PREFIX}*"):
        number = path.name.removeprefix(_PREFIX)
        if number.isascii() and number.isdigit():
            yield int(number), path


def _end_of(path: Path, first_seq: int) -> _End:
    """Only the headers are read: a file has ten thousand events, and may have some 50 MB."""
    following, offset = first_seq, 0
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        while header := os.pread(file.fileno(), _HEADER.size, offset):
            if len(header) < _HEADER.size:
                return _End(following, torn=True)
            _, _, length, _, seq = _HEADER.unpack(header)
            offset += _HEADER.size + length
            # A crash leaves zeros, and seqs that do not rise; what they would say is not to be trusted.
            if offset > size or not following <= seq <= MAX_SEQ:
                return _End(following, torn=True)
            following = seq + 1
    return _End(following, torn=False)
