"""A pywsgi connection that may not keep its server waiting for a request.

The base of the handlers in `server` and `metrics`: pywsgi itself waits for ever.
"""

from __future__ import annotations

from typing import Any

from gevent.pywsgi import WSGIHandler


class TimedHandler(WSGIHandler):
    """Ends a connection that sends nothing for `request_timeout` seconds, between requests or inside one."""

    request_timeout = 60.0

    def handle(self) -> None:
        """Serve the connection until it ends."""
        self.socket.settimeout(self.request_timeout)
        super().handle()

    def read_request(self, raw_requestline: str) -> Any:
        """Read the headers. One that stops in the middle is a bad request, and no fault of ours to be traced."""
        try:
            return super().read_request(raw_requestline)
        except OSError as error:
            raise ValueError(str(error)) from None
