"""Is it alive, can it answer, is all well: for process managers, load balancers and people.

`/_health` and `/xrpc/_health` are indigo's, with the event path's state added; `/_healthz` and `/_readyz` are for
probes. HealthWatch looks by itself, for `relay_healthy` and for the metrics port. Reads the database and the event
path's own word; changes nothing.
"""

from __future__ import annotations

import time

from flask import Blueprint, jsonify, request
from flask.typing import ResponseReturnValue

from relay.kit import metrics
from relay.kit.background import Loop
from relay.kit.errors import StoreError
from relay.store.database import Database, ping, within
from relay.web import params
from relay.web.errors import invalid
from relay.web.services import Services, services

# A database that hangs is reported before the client gives up: load balancers wait some seconds.
ANSWER_SECONDS = 3.0
LOOK_SECONDS = 2.0
# One look that waits for a database that hangs, and its turn on a busy hub.
STALE_SECONDS = 10.0

ROLES = ("relay", "edge", "active", "standby")

blueprint = Blueprint("health", __name__)


@blueprint.get("/_health")
@blueprint.get("/xrpc/_health")
def health() -> ResponseReturnValue:
    """200 when the database answers and events flow into the log; otherwise 500 and what is wrong.

    `warning` says what was lost for good while or before the relay ran.
    """
    problem, warning = current_problem(), services().warning()
    said = {} if warning is None else {"warning": warning}
    if problem is not None:
        return jsonify(status="error", msg=problem, **said), 500
    return jsonify(status="ok", **said)


@blueprint.get("/_healthz")
def alive() -> ResponseReturnValue:
    """200 whenever requests are answered at all, whatever the database and the log do."""
    return jsonify(status="ok")


@blueprint.get("/_readyz")
def ready() -> ResponseReturnValue:
    """`role`: 200 when queries can be answered, since the database is there, and the role is this one if it is given.

    Roles are relay and edge, and in a cluster active and standby.
    """
    here = services()
    said = {"role": here.role} if here.node else {}
    role = params.optional(request.args, "role") or here.role
    if role not in ROLES:
        raise invalid(f"role is not one of {', '.join(ROLES)}")
    problem = f"the role is {here.role}" if role != here.role else _database_problem(here.db)
    if problem is not None:
        return jsonify(status="error", msg=problem, **said), 503
    return jsonify(status="ok", **said)


class HealthWatch:
    """Looks at the relay's health every two seconds, so that another thread can report it while the hub is busy."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._loop = Loop("health", self._look, LOOK_SECONDS)
        self._found: tuple[float, str | None] | None = None
        metrics.HEALTHY.set_function(lambda: float(self.problem() is None))

    def start(self) -> None:
        """Look now, which may take three seconds, and from now on."""
        self._look()
        self._loop.start(after=LOOK_SECONDS)

    def stop(self) -> None:
        """Look no more."""
        self._loop.stop()

    def problem(self) -> str | None:
        """Why health is red, in words, or None, as of the last look. May be called from any thread."""
        if self._found is None:
            return "the relay is starting"
        looked_at, problem = self._found
        age = time.monotonic() - looked_at
        return f"the relay is stuck: nothing was checked for {age:.0f} s" if age > STALE_SECONDS else problem

    def _look(self) -> None:
        self._found = time.monotonic(), problem_of(self._services)


def current_problem() -> str | None:
    """Why health is red, in words, or None."""
    return problem_of(services())


def problem_of(services: Services) -> str | None:
    """The same for a relay, or an edge, outside of a request."""
    return services.problem() or _database_problem(services.db)


def _database_problem(db: Database) -> str | None:
    try:
        with within(ANSWER_SECONDS):
            db.read(ping)
    except StoreError as error:
        return f"can't connect to database: {error.reason}"
    return None
