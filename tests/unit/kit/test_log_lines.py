"""Log lines: no passwords, no forged lines, no floods, and priorities for journald only."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.kit import log_lines
from relay.kit.log_lines import LINES_PER_MINUTE, JournalFormatter, JsonFormatter, Limit, TextFormatter, redacted

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def record(message: str, *values: object, name: str = "relay.test", line: int = 1) -> logging.LogRecord:
    return logging.LogRecord(name, logging.WARNING, "module.py", line, message, values, None)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgres://relay:hunter2@db:5432/relay is away", "postgres://relay:[redacted]@db:5432/relay is away"),
        ("postgres://relay:h@unter@2@db/relay", "postgres://relay:[redacted]@db/relay"),
        ("postgresql+x://:hunter2@/relay", "postgresql+x://:[redacted]@/relay"),
        ("https://u:hunter2@pds.example/x?y=1", "https://u:[redacted]@pds.example/x?y=1"),
        ("dsn host=db password=hunter2 dbname=x", "dsn host=db password=[redacted] dbname=x"),
        ("Authorization: Bearer hunter2", "Authorization: [redacted]"),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: [redacted]"),
        ("https://pds.example:8443/path", "https://pds.example:8443/path"),
        ("at://did:plc:abc/app.bsky.feed.post/3k", "at://did:plc:abc/app.bsky.feed.post/3k"),
        ("the admin password until the next start is abc", "the admin password until the next start is abc"),
    ],
)
def test_passwords_are_redacted(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize("formatter", [TextFormatter(), JsonFormatter(), JournalFormatter(TextFormatter())])
def test_no_formatter_shows_a_password_and_neither_does_a_traceback(formatter: logging.Formatter) -> None:
    try:
        raise ValueError("cannot connect to postgres://u:hunter2@db/relay")
    except ValueError:
        entry = record("trying %s", "postgres://u:hunter2@db/relay")
        entry.exc_info = sys.exc_info()
    text = formatter.format(entry)
    assert "hunter2" not in text and text.count("[redacted]") >= 2


def test_what_a_host_says_cannot_begin_a_line() -> None:
    hostile = "a\n2026-01-01 CRITICAL relay: all is lost\x1b[2J"
    assert "\n" not in TextFormatter().format(record("host says %s", hostile))
    assert "\x1b" not in TextFormatter().format(record("host says %s", hostile))
    assert json.loads(JsonFormatter().format(record("%s", hostile)))["msg"].startswith("a\\x0a2026")


def test_a_flood_of_one_statement_is_cut_and_counted() -> None:
    now = 0.0
    limit = Limit(lambda: now)
    passed = [limit.filter(record("x")) for _ in range(LINES_PER_MINUTE + 7)]
    assert passed.count(True) == LINES_PER_MINUTE
    assert limit.filter(record("x", line=2)), "another statement is not held back"
    assert all(limit.filter(record("x", name="relay.audit")) for _ in range(LINES_PER_MINUTE + 1))
    now = 61.0
    after = record("value %d", 5)
    assert limit.filter(after)
    assert after.getMessage() == "value 5 (7 such lines before were left out)"


def test_priorities_are_for_the_journal_only(capfd: pytest.CaptureFixture[str]) -> None:
    stat = os.fstat(2)
    for stream, prefix in [(f"{stat.st_dev}:{stat.st_ino}", "<4>"), ("1:1", ""), ("", "")]:
        stderr, sys.stderr = sys.stderr, os.fdopen(os.dup(2), "w")
        try:
            log_lines.set_up("info", "text", {"JOURNAL_STREAM": stream})
            logging.getLogger("relay.test").warning("hello")
        finally:
            sys.stderr.close()
            sys.stderr = stderr
        line = capfd.readouterr().err
        assert line.endswith("WARNING relay.test: hello\n")
        assert line.startswith("<") == bool(prefix) and line.startswith(prefix)


def test_every_line_of_a_traceback_has_its_priority() -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        entry = record("failed")
        entry.exc_info = sys.exc_info()
    lines = JournalFormatter(TextFormatter()).format(entry).splitlines()
    assert len(lines) > 2 and all(line.startswith("<4>") for line in lines)


UNCAUGHT = """
from relay.patched import patch; patch()
import logging, threading, warnings, gevent
from relay.kit import log_lines
log_lines.set_up("info", "json", {})
log_lines.take_uncaught()
def fail(): raise ValueError("cannot reach postgres://u:hunter2@db/relay")
greenlet = gevent.spawn(fail); greenlet.join()
thread = threading.Thread(target=fail); thread.start(); thread.join()
pool = gevent.get_hub().threadpool
in_thread = pool.spawn(lambda: (gevent.spawn(fail).join(), 1)[1]); in_thread.get()
warnings.warn("an old thing")
"""


def test_what_nobody_caught_is_logged_like_everything_else() -> None:
    """In a process of its own: the hooks are the process's."""
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, timeout=30, cwd=ROOT)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 0 and done.stdout == ""
    assert [line["logger"] for line in lines] == ["relay.kit.log_lines"] * 3 + ["py.warnings"]
    assert all("ValueError" in line["error"] and "hunter2" not in line["error"] for line in lines[:3])


DEBUG = """
import logging
from relay.kit import log_lines
log_lines.set_up("debug", "json", {})
logging.getLogger("relay.hosts").debug("a host")
logging.getLogger("websockets.client").debug("a header")
logging.getLogger("websockets.client").info("a notice")
"""


def test_debug_is_for_the_relay_and_not_for_its_libraries() -> None:
    done = subprocess.run([sys.executable, "-c", DEBUG], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert [json.loads(line)["msg"] for line in done.stderr.splitlines()] == ["a host", "a notice"]
