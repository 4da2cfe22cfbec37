"""A relay on loopback of which only the collection index is there, and that can be told to misbehave.

`repos` are DIDs by collection, paged by index. `fault(nsid, cursor, count)` may answer in the place of the pages;
`count` is how often it was asked before. `names` is what the side-car's listCollections tells, None: no such route.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs

from gevent.pywsgi import WSGIServer

Answered = tuple[int, bytes] | None


class CollectionSource:
    """Pages of `page_size`; every request that came is in `asked` as (nsid, cursor)."""

    def __init__(self) -> None:
        self.repos: dict[str, list[str]] = {}
        self.names: list[str] | None = None
        self.page_size = 2000
        self.fault: Callable[[str, str, int], Answered] = lambda nsid, cursor, count: None
        self.headers: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str]] = []
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)

    def __enter__(self) -> CollectionSource:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(timeout=0)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
        status, body = self._page(environ["PATH_INFO"], query)
        start_response(f"{status} Status", self.headers)
        return [body]

    def _page(self, path: str, query: dict[str, str]) -> tuple[int, bytes]:
        if path == "/v1/listCollections" and self.names is not None:
            return 200, json.dumps({"collections": dict.fromkeys(self.names, 1), "cursor": ""}).encode()
        if path != "/xrpc/com.atproto.sync.listReposByCollection":
            return 404, b'{"error":"NotFound"}'
        nsid, cursor = query["collection"], query.get("cursor", "")
        count = len(self.asked)
        self.asked.append((nsid, cursor))
        answered = self.fault(nsid, cursor, count)
        if answered is not None:
            return answered
        dids = self.repos.get(nsid, [])
        start, size = int(cursor or 0), min(self.page_size, int(query["limit"]))
        page: dict[str, Any] = {"repos": [{"did": did} for did in dids[start : start + size]]}
        if start + size < len(dids):
            page["cursor"] = str(start + size)
        return 200, json.dumps(page).encode()
