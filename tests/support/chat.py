"""A chat's webhook on loopback, which notes the texts it gets and answers as a test says."""

from __future__ import annotations

import json
from typing import Any

from gevent.pywsgi import WSGIServer


class Chat:
    """A webhook that notes the texts it gets."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.status = "200 OK"
        self._server = WSGIServer(("127.0.0.1", 0), self._answer, log=None)
        self._server.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/services/T0/secret"

    def _answer(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = json.loads(environ["wsgi.input"].read())
        assert environ["CONTENT_TYPE"] == "application/json" and set(body) == {"text"}
        if self.status.startswith("2"):
            self.texts.append(body["text"])
        start_response(self.status, [])
        return [b"ok"]

    def close(self) -> None:
        self._server.stop(timeout=0)
