"""How log lines look: text for people, or one JSON object a line; to standard error, where journald picks them up.

Set up once by `app`. Keeps passwords out of every line, keeps what came from the network on one line, and keeps one
statement from filling the disk. Must not know who logs what.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

# Lines of one statement within a minute, after which the rest of that minute is only counted.
LINES_PER_MINUTE = 600
WINDOW_SECONDS = 60.0
# The trail of what admins did is never cut.
UNLIMITED = frozenset({"relay.audit"})

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "warning": logging.WARNING}
_PASSWORD_IN_URL = re.compile(r"(?P<user>\b[a-z][a-z0-9+.-]*://[^/\s:@]*):[^/\s]+@", re.IGNORECASE)
_PASSWORD_FIELD = re.compile(
    r"(?P<name>\b(?:password|authorization)['\"]?\s*[=:]\s*)(?:(?:basic|bearer)\s+)?[^\s,;&]+", re.I
)
_CONTROL = {code: f"\\x{code:02x}" for code in (*range(0x20), 0x7F, *range(0x80, 0xA0)) if code != ord("\t")}

log = logging.getLogger(__name__)


def redacted(text: str) -> str:
    """`text` without the passwords of URLs, connection strings and Authorization headers."""
    if "://" in text:
        text = _PASSWORD_IN_URL.sub(r"\g<user>:[redacted]@", text)
    return _PASSWORD_FIELD.sub(r"\g<name>[redacted]", text)


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER: MESSAGE`; a traceback follows on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"{when} {record.levelname} {record.name}: {_message(record)}"
        return f"{line}\n{redacted(self.formatException(record.exc_info))}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """`{"time","level","logger","msg"}`, with `error` when an exception is logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": _message(record),
        }
        if record.exc_info:
            line["error"] = redacted(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


class JournalFormatter(logging.Formatter):
    """Another formatter's lines, each with the priority that journald takes off again (sd-daemon(3))."""

    def __init__(self, lines: logging.Formatter) -> None:
        super().__init__()
        self._lines = lines

    def format(self, record: logging.LogRecord) -> str:
        """The record with `<3>` and the like before each line."""
        prefix = f"<{_priority(record.levelno)}>"
        return "\n".join(prefix + line for line in self._lines.format(record).split("\n"))


class Limit(logging.Filter):
    """Passes LINES_PER_MINUTE of each statement; the first line after a flood says how many are missing.

    Bounded by the number of statements in the code.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._windows: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is to be logged."""
        if record.name in UNLIMITED:
            return True
        statement = (record.pathname, record.lineno)
        now = self._clock()
        began, lines = self._windows.get(statement, (now, 0))
        if now - began >= WINDOW_SECONDS:
            missing = max(0, lines - LINES_PER_MINUTE)
            if missing:
                record.msg, record.args = f"{record.getMessage()} ({missing} such lines before were left out)", None
            began, lines = now, 0
        self._windows[statement] = (began, lines + 1)
        return lines < LINES_PER_MINUTE


def set_up(level: str, form: str, environment: Mapping[str, str] = os.environ) -> None:
    """Log from `level` (`debug`, `info`, `warn`, `error`) up, as `text` or `json`."""
    formatter: logging.Formatter = JsonFormatter() if form == "json" else TextFormatter()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JournalFormatter(formatter) if _to_journal(environment) else formatter)
    handler.addFilter(Limit())
    chosen = _LEVELS.get(level, logging.ERROR)
    # What libraries log at `debug` (each header, each connection) is not what an operator wants to see there.
    logging.basicConfig(level=max(chosen, logging.INFO), handlers=[handler], force=True)
    logging.getLogger("relay").setLevel(chosen)
    # urllib3 logs every connection that fails.
    logging.getLogger("urllib3").setLevel(logging.ERROR)


def take_uncaught() -> None:
    """Log what nobody caught, in a greenlet of any thread or in a native thread, instead of printing it past all rules.

    Needs gevent, so it is not for the small commands.
    """
    from gevent.hub import Hub

    def from_greenlet(_hub: Hub, context: object, kind: Any, error: Any, trace: Any) -> None:
        log.error("uncaught in %s", context, exc_info=(kind, error, trace))

    def from_thread(hook: threading.ExceptHookArgs) -> None:
        if hook.exc_value is not None:
            log.error("uncaught in %s", hook.thread, exc_info=(hook.exc_type, hook.exc_value, hook.exc_traceback))

    Hub.print_exception = from_greenlet  # type: ignore[method-assign,assignment]
    threading.excepthook = from_thread
    logging.captureWarnings(True)


def _message(record: logging.LogRecord) -> str:
    # One record, one line: a host's words must not look like a line of ours.
    return redacted(record.getMessage()).translate(_CONTROL)


def _priority(level: int) -> int:
    """The syslog priority of a level."""
    if level >= logging.CRITICAL:
        return 2
    if level >= logging.ERROR:
        return 3
    if level >= logging.WARNING:
        return 4
    return 6 if level >= logging.INFO else 7


def _to_journal(environment: Mapping[str, str]) -> bool:
    """Whether standard error is the journal's stream itself, and not only inherited its variable (systemd.exec(5))."""
    try:
        stat = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return environment.get("JOURNAL_STREAM") == f"{stat.st_dev}:{stat.st_ino}"
