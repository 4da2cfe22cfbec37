"""Is it alive, can it answer, is all well: for process managers, load balancers and people.

`/_health` and `/xrpc/_health` are indigo's, with the event path's state added; `/_healthz` and `/_readyz` are for
probes. Reads the database and the event path's own word; changes nothing.
"""

from __future__ import annotations

from flask import Blueprint, jsonify
from flask.typing import ResponseReturnValue

from relay.kit.errors import StoreError
from relay.store.database import ping, within
from relay.web.services import services

# A database that hangs is told of before who asks gives up: load balancers wait some seconds.
ANSWER_SECONDS = 3.0

blueprint = Blueprint("health", __name__)


@blueprint.get("/_health")
@blueprint.get("/xrpc/_health")
def health() -> ResponseReturnValue:
    """200 when the database answers and events flow into the log; else 500 and what is wrong."""
    problem = current_problem()
    if problem is not None:
        return jsonify(status="error", msg=problem), 500
    return jsonify(status="ok")


@blueprint.get("/_healthz")
def alive() -> ResponseReturnValue:
    """200 as long as requests are answered at all: no database, no log."""
    return jsonify(status="ok")


@blueprint.get("/_readyz")
def ready() -> ResponseReturnValue:
    """200 when queries can be answered: the database is there."""
    problem = _database_problem()
    if problem is not None:
        return jsonify(status="error", msg=problem), 503
    return jsonify(status="ok")


def current_problem() -> str | None:
    """Why health is red, in words, or None."""
    return services().problem() or _database_problem()


def _database_problem() -> str | None:
    try:
        with within(ANSWER_SECONDS):
            services().db.read(ping)
    except StoreError as error:
        return f"can't connect to database: {error.reason}"
    return None
