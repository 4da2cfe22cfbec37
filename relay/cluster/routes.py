"""The routes of a node of a cluster: how it is doing, handing over, and refusing what a standby does not answer.

The active node has them beside a relay's routes, the others beside the firehose and health alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple, NoReturn

from flask import Blueprint, Flask, jsonify
from flask.typing import ResponseReturnValue

from relay.web import firehose, health
from relay.web.application import application
from relay.web.current_request import admit_admin
from relay.web.errors import XrpcError
from relay.web.services import PREFIX, Services


class ClusterStatus(NamedTuple):
    """How a node is doing. `active` is the active node's name, as far as this one knows; `server` the NATS server that
    it is connected to, empty without one.
    """

    node: str
    role: str
    active: str
    term: int
    last_seq: int
    server: str
    problem: str | None


def cluster_routes(status: Callable[[], ClusterStatus], hand_over: Callable[[], None] | None) -> Blueprint:
    """`hand_over` is None on a node that has nothing to hand over."""
    blueprint = Blueprint("cluster", __name__)

    @blueprint.get("/admin/cluster")
    def show() -> ResponseReturnValue:
        """How this node is doing."""
        admit_admin()
        return jsonify(status()._asdict())

    @blueprint.post("/admin/cluster/handOver")
    def give_up() -> ResponseReturnValue:
        """Let another node be the active one. Answers before it is."""
        admit_admin()
        if hand_over is None:
            raise XrpcError(409, "NotActive", f"this node stands by: ask {status().active or 'the active one'}")
        hand_over()
        return jsonify(success="true")

    return blueprint


def create_standby_app(services: Services, more: Iterable[Blueprint]) -> Flask:
    """The WSGI application of a node that stands by."""
    return application(services, (firehose.blueprint, health.blueprint, *more, _elsewhere()))


def _elsewhere() -> Blueprint:
    blueprint = Blueprint("elsewhere", __name__)

    @blueprint.route(f"{PREFIX}<path:rest>", methods=["GET", "POST"])
    @blueprint.route("/admin/<path:rest>", methods=["GET", "POST"])
    def not_here(rest: str) -> NoReturn:
        """Queries and changes are the active node's."""
        raise XrpcError(503, "NotActive", f"this node stands by and does not answer {rest[:100]}: ask the active one")

    return blueprint
