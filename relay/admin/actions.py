"""One line in the log for each change an admin makes.

Called by `admin` after the change is stored. A logger of its own, `relay.audit`, so that operators can keep these
lines apart. Values are written as JSON: what comes from a request can not start a new line.
"""

from __future__ import annotations

import json
import logging

from relay.web.services import requester

log = logging.getLogger("relay.audit")


def audit(action: str, **values: object) -> None:
    """Log that `action` was done with `values`, and from which address."""
    said = " ".join(f"{name}={json.dumps(value)}" for name, value in values.items())
    log.info("%s %s by=%s", action, said, requester())
