"""`GET /subscribe`: who may open the JSON stream, of what and from where.

`edge.serving` has the blueprint registered. What is wrong is told by an HTTP status before the upgrade. The parameters
are Jetstream's; docs/json-stream.md says what is the same and what is not. Must not know how messages are made.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NoReturn
from urllib.parse import parse_qsl

from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from werkzeug.datastructures import MultiDict

from relay.jsonstream.connection import JsonConnection, full
from relay.jsonstream.cursor import Cursor, CursorInvalid
from relay.jsonstream.encodings import DEFLATED, PLAIN, Encoding
from relay.jsonstream.filter_room import FiltersFull, Place
from relay.jsonstream.filters import FilterInvalid, of_query
from relay.jsonstream.stream import JsonStream, Options
from relay.kit import metrics
from relay.kit.background import Stints, in_turns
from relay.net.websocket_deflate import is_offered
from relay.stream.feed import Feed
from relay.stream.firehose import Firehose
from relay.web.consumers import RETRY_AFTER
from relay.web.current_request import requester
from relay.web.errors import invalid, too_many
from relay.web.firehose import hand_over, upgrade_required

PATH = "/subscribe"
# Of characters, escaped ones counting three: no DID or NSID comes near.
MAX_PARAMETER = 8192
PARAMETERS_TOGETHER = 16


def json_stream(firehose: Firehose, dictionary: Path | None) -> Blueprint:
    """The routes of the JSON stream over a firehose. Raises ConfigError when the dictionary cannot be used."""
    stream = JsonStream(firehose, dictionary)
    blueprint = Blueprint("json_stream", __name__)
    blueprint.add_url_rule(PATH, view_func=without_upgrade)
    blueprint.add_url_rule(PATH, "subscribe", partial(subscribe, stream), websocket=True)
    return blueprint


def without_upgrade() -> NoReturn:
    """Without an upgrade: 426."""
    raise upgrade_required()


def subscribe(stream: JsonStream) -> ResponseReturnValue:
    """The WebSocket of a consumer."""
    try:
        query = arguments(request.query_string.decode())
        # As Jetstream does, of a parameter that is repeated the first.
        text = query.get("cursor")
        cursor = Cursor(text)
        wanted = of_query(
            query.getlist("wantedCollections"),
            query.getlist("wantedDids"),
            query.get("maxMessageSizeBytes"),
            query.getlist("kinds"),
            Stints().pause,
        )
    except (CursorInvalid, FilterInvalid) as error:
        raise invalid(str(error)) from None
    encoding = _encoding(stream, query)
    address = requester()
    try:
        stream.room.check(address, wanted)
    except FiltersFull as error:
        metrics.CONSUMERS_REFUSED.inc()
        raise too_many(error.detail, RETRY_AFTER) from None
    options = Options(wanted, Place(stream.room, address), waits=query.get("requireHello") == "true")
    attach = partial(_attach, stream, cursor, encoding, options)
    deflate = encoding is DEFLATED
    hand_over("json", text or "none", attach, partial(JsonConnection, options, stream.pace, deflate), deflate=deflate)
    return ""


def _attach(stream: JsonStream, cursor: Cursor, encoding: Encoding, options: Options) -> Feed:
    try:
        return stream.attach(cursor, encoding, options)
    except FiltersFull as error:
        # Others came between the question and the upgrade.
        raise full(error) from None


def arguments(text: str) -> MultiDict[str, str]:
    """A query's parameters, as `request.args` has them. A filter's ten thousand take 20 to 150 ms: others get turns
    meanwhile. Raises FilterInvalid.
    """
    pairs = text.split("&")
    if any(len(pair) > MAX_PARAMETER for pair in pairs):
        raise FilterInvalid(f"a parameter is longer than {MAX_PARAMETER} characters")
    found: MultiDict[str, str] = MultiDict()
    for start in in_turns(range(0, len(pairs), PARAMETERS_TOGETHER)):
        together = "&".join(pairs[start : start + PARAMETERS_TOGETHER])
        for name, value in parse_qsl(together, keep_blank_values=True):
            found.add(name, value)
    return found


def _encoding(stream: JsonStream, query: MultiDict[str, str]) -> Encoding:
    wants_zstd = query.get("compress") == "true" or "zstd" in request.headers.get("Socket-Encoding", "")
    if not wants_zstd:
        return DEFLATED if is_offered(request.headers.get("Sec-WebSocket-Extensions", "")) else PLAIN
    if stream.compressed is None:
        raise invalid("compress: this relay has no zstd dictionary; ask without it")
    return stream.compressed
