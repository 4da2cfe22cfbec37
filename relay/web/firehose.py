"""`com.atproto.sync.subscribeRepos`: who may open its WebSocket, from which cursor, and a consumer's life.

What is wrong is told by an HTTP status before the upgrade; the WebSocket rule hands the consumer over to `server`,
which runs it until it ends. Must not know how events are kept or sent.
"""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import NoReturn

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from gevent.socket import socket as Socket  # noqa: N812
from werkzeug import Request

from relay.kit import metrics
from relay.kit.errors import LogError
from relay.net.websocket import CloseCode, close_frame
from relay.net.websocket_deflate import ANSWER, is_offered
from relay.stream.feed import Feed
from relay.stream.firehose import FutureCursor
from relay.web import params
from relay.web.consumer_connection import Connection, ConsumerEnded, error_farewell
from relay.web.consumers import Consumer
from relay.web.current_request import requester
from relay.web.errors import XrpcError, invalid
from relay.web.http_connection import CONSUME, EXTENSIONS
from relay.web.services import Services, services

log = logging.getLogger(__name__)
blueprint = Blueprint("firehose", __name__)

# Makes a consumer's connection: its socket, what it sent already, the seconds that it may stall, and those of replay.
Connect = Callable[[Socket, bytes, Consumer, float, float], Connection]

PATH = "/xrpc/com.atproto.sync.subscribeRepos"
MAX_USER_AGENT = 256


def upgrade_required() -> XrpcError:
    """The answer to a request for a stream without an upgrade. A new one each time: one that is raised again keeps all
    that it was raised for.
    """
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    return XrpcError(426, "UpgradeRequired", "this is a WebSocket: ask for an upgrade", headers)


@blueprint.get(PATH)
def without_upgrade() -> NoReturn:
    """Without an upgrade: 426."""
    raise upgrade_required()


@blueprint.route(PATH, websocket=True)
def subscribe_repos() -> ResponseReturnValue:
    """`cursor`: the firehose, live or with every event after the cursor.

    The consumer is only handed to the server here: a request that lasted for days would keep all that Flask needs for
    one.
    """
    text = params.optional(request.args, "cursor")
    cursor = None if text is None else params.seq(text, "cursor")
    here = services()
    extensions = request.headers.get("Sec-WebSocket-Extensions", "")
    deflate = here.settings.firehose_deflate and is_offered(extensions)
    attach = partial(_attach, here, cursor, deflate=deflate)
    hand_over("firehose", str(cursor), attach, partial(Connection, deflate=deflate), deflate=deflate)
    return ""


def hand_over(stream: str, wanted: str, attach: Callable[[], Feed], connect: Connect, *, deflate: bool = False) -> None:
    """Let the current request become a consumer: of which stream and from where, its feed, its connection.

    Raises XrpcError for a handshake that is not one, or where there is no place for another consumer.
    """
    _check_handshake(request)
    address = requester()
    refused = services().consumers.refusal_in_time(address)
    if refused is not None:
        metrics.CONSUMERS_REFUSED.inc()
        try:
            raise refused
        finally:
            # Its traceback holds this frame: without this the two would keep each other alive.
            del refused
    if deflate:
        request.environ[EXTENSIONS] = ANSWER
    user_agent = request.headers.get("User-Agent", "")[:MAX_USER_AGENT]
    request.environ[CONSUME] = partial(_consume, services(), address, user_agent, stream, wanted, attach, connect)


def _check_handshake(request: Request) -> None:
    """RFC 6455 section 4.2.1, as far as the upgrade itself does not answer in the form of XRPC."""
    # Where GET is a route, HEAD is one too.
    asked_by_get = request.method == "GET" and request.environ.get("SERVER_PROTOCOL") == "HTTP/1.1"
    if not asked_by_get or request.headers.get("Sec-WebSocket-Version") != "13":
        raise upgrade_required()
    try:
        key = base64.b64decode(request.headers.get("Sec-WebSocket-Key", ""), validate=True)
    except ValueError:
        key = b""
    if len(key) != 16:
        raise invalid("Sec-WebSocket-Key is not the base64 form of 16 bytes")


def _consume(
    services: Services,
    address: str,
    user_agent: str,
    stream: str,
    wanted: str,
    attach: Callable[[], Feed],
    connect: Connect,
    socket: Socket,
    received: bytes,
) -> None:
    """Run one consumer from its upgrade to its end. `received` is what it sent along with its handshake."""
    with services.consumers.connected(address, user_agent, datetime.now(UTC), stream) as consumer:
        # A consumer that has no feed yet, or gets none, is behind nothing.
        consumer.first_position = consumer.position = services.firehose.last_seq
        settings = services.settings
        connection = connect(socket, received, consumer, settings.consumer_stall, settings.replay_window)
        feed: Feed | None = None
        try:
            try:
                feed = attach()
                log.debug("consumer %d connected: %s %r %s cursor %s", consumer.id, address, user_agent, stream, wanted)
                connection.serve(feed, lambda: services.consumers.leaving)
            except ConsumerEnded as error:
                # A copy: what is raised keeps the frames that it came through, and what they were sending.
                ended = ConsumerEnded(error.reason, error.farewell, error.rest)
            except LogError:
                ended = ConsumerEnded("log-io", close_frame(CloseCode.INTERNAL_ERROR, "the log cannot be read"))
            metrics.CONSUMERS_ENDED.labels(ended.reason).inc()
            log.debug("consumer %d ended at seq %d: %s", consumer.id, consumer.position, ended.reason)
            connection.close(ended)
        finally:
            # Not before: what is still sent of it is in memory.
            if feed is not None:
                feed.close()


def _attach(services: Services, cursor: int | None, *, deflate: bool) -> Feed:
    try:
        feed = services.firehose.attach(cursor)
    except FutureCursor:
        message = f"the cursor is ahead of the newest event, {services.firehose.last_seq}"
        raise ConsumerEnded("future-cursor", error_farewell("FutureCursor", message)) from None
    if deflate:
        feed.convert = services.deflated
    return feed
