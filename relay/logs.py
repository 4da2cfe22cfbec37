"""How log lines look: text for people, or one JSON object a line; to standard error, where journald picks them up.

Set up once by `app`. Must not know who logs what.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warn": logging.WARNING, "warning": logging.WARNING}


class JsonFormatter(logging.Formatter):
    """`{"time","level","logger","msg"}`, with `error` when an exception is logged."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": record.getMessage(),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str, form: str) -> None:
    """Log from `level` (`debug`, `info`, `warn`, `error`) up, as `text` or `json`."""
    handler = logging.StreamHandler(sys.stderr)
    if form == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=_LEVELS.get(level, logging.ERROR), handlers=[handler], force=True)
    # urllib3 tells of every connection it opens to a stranger.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
