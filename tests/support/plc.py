"""A fake PLC directory on loopback that can be slow, fail, throttle, and count what it was asked.

    plc = FakePlc()                       # or FakePlc(latency=0.5, failure_rate=0.05)
    plc.documents[did] = document         # a dict, see `did_document`; or bytes, sent as they are
    plc.tombstones.add(did)
    with plc:                             # serves on plc.url until the end of the block
        ...
    plc.asked[did]                        # requests for that DID, failed ones included

Used where the real directory cannot be made to misbehave, and by load tests. Unknown DIDs get 404. `export` takes the
lines that `/export` pages through. Everything may be changed while it serves.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

import gevent
from gevent.pywsgi import WSGIServer


class FakePlc:
    """`latency` seconds before each answer, and that share of answers is a 500, chosen by a fixed seed.
    `port` 0 is any free one."""

    def __init__(self, latency: float = 0.0, failure_rate: float = 0.0, port: int = 0) -> None:
        self.latency = latency
        self.failure_rate = failure_rate
        self.documents: dict[str, dict[str, Any] | bytes] = {}
        self.tombstones: set[str] = set()
        self.export: list[dict[str, Any]] = []
        self.retry_after: str | None = None
        self.throttled = 0  # so many next requests get 429
        self.asked: Counter[str] = Counter()
        self.at_once = 0
        self.most_at_once = 0
        self._random = random.Random(4)
        self._server = WSGIServer(("127.0.0.1", port), self._serve, log=None, error_log=None)

    @property
    def url(self) -> str:
        """The directory's base address, once it serves."""
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def requests(self) -> int:
        """How many requests came in all."""
        return sum(self.asked.values())

    def start(self) -> FakePlc:
        """Serve, on a free port."""
        self._server.start()
        return self

    def stop(self) -> None:
        """Stop serving and close all connections."""
        self._server.stop(timeout=0)

    def __enter__(self) -> FakePlc:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _serve(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        did = environ["PATH_INFO"].removeprefix("/")
        self.asked[did] += 1
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            gevent.sleep(self.latency)
            status, headers, body = self._answer(did, environ["QUERY_STRING"])
        finally:
            self.at_once -= 1
        start_response(status, [("Content-Length", str(len(body))), *headers])
        return [body]

    def _answer(self, did: str, query: str) -> tuple[str, list[tuple[str, str]], bytes]:
        if self.throttled > 0:
            self.throttled -= 1
            return "429 Too Many Requests", [("Retry-After", self.retry_after)] if self.retry_after else [], b"{}"
        if self._random.random() < self.failure_rate:
            return "500 Internal Server Error", [], b"{}"
        if did == "export":
            return "200 OK", [("Content-Type", "application/jsonlines")], self._page(parse_qs(query))
        if did in self.tombstones:
            return "410 Gone", [], b'{"message":"DID not available"}'
        if did not in self.documents:
            return "404 Not Found", [], b'{"message":"DID not registered"}'
        document = self.documents[did]
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        return "200 OK", [("Content-Type", "application/did+ld+json")], body

    def _page(self, query: dict[str, list[str]]) -> bytes:
        after, count = query.get("after", [""])[0], int(query["count"][0])
        lines = [line for line in self.export if line["createdAt"] > after][:count]
        return b"\n".join(json.dumps(line).encode() for line in lines)
