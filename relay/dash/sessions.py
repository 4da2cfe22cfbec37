"""Who is logged in: random session ids, each with what its admin may do and has to be told.

Opened and closed by `login`, looked up by `guard` for each request. Kept in memory only: a restart logs everybody out.
Must not know of requests or cookies.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from cachetools import TTLCache

from relay.kit import metrics

SESSION_SECONDS = 12 * 3600
MAX_SESSIONS = 256


class Notice(NamedTuple):
    """What came of the last change, for the next page."""

    done: bool
    text: str


@dataclass(slots=True)
class Session:
    """`authorization` is the header that the admin API is asked with; `csrf` has to come with every form."""

    authorization: str
    csrf: str = field(default_factory=lambda: secrets.token_urlsafe(32))
    notice: Notice | None = None

    def take_notice(self) -> Notice | None:
        """The notice, which is then told."""
        notice, self.notice = self.notice, None
        return notice


class Sessions:
    """Sessions by id; each ends SESSION_SECONDS after its login, and the oldest when there are too many."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._sessions: TTLCache[str, Session] = TTLCache(MAX_SESSIONS, SESSION_SECONDS, timer=clock)
        metrics.QUEUE_CAPACITY.labels("dash-sessions").set(MAX_SESSIONS)
        self._count()

    def open(self, authorization: str) -> str:
        """The id of a new session."""
        session_id = secrets.token_urlsafe(32)
        self._sessions[session_id] = Session(authorization)
        self._count()
        return session_id

    def find(self, session_id: str) -> Session | None:
        """The session with this id, None when there is none any more."""
        return self._sessions.get(session_id)

    def close(self, session_id: str) -> None:
        """End a session."""
        self._sessions.pop(session_id, None)
        self._count()

    def _count(self) -> None:
        # From the hub: a TTLCache forgets as its length is asked, and a scrape comes from another thread.
        metrics.QUEUE_SIZE.labels("dash-sessions").set(len(self._sessions))
