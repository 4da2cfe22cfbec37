"""A pywsgi connection that may not keep its server waiting for a request.

The base of the handlers in `server` and `metrics`: pywsgi itself waits for ever.
"""

from __future__ import annotations

from typing import Any

import gevent
from gevent.pywsgi import WSGIHandler


class TimedHandler(WSGIHandler):
    """Ends a connection that does not bring a whole request within `request_timeout` seconds, byte by byte or not at
    all, or that takes longer to read a piece of the answer.
    """

    request_timeout = 60.0

    def handle(self) -> None:
        """Serve the connection until it ends."""
        self.socket.settimeout(self.request_timeout)
        super().handle()

    def read_requestline(self) -> Any:
        """Read the first line. Raises TimeoutError, which ends the connection."""
        with gevent.Timeout(self.request_timeout, TimeoutError("no request line in time")):
            return super().read_requestline()

    def read_request(self, raw_requestline: str) -> Any:
        """Read the headers. One that stops in the middle is a bad request, and no fault of ours to be traced."""
        try:
            with gevent.Timeout(self.request_timeout, TimeoutError("no whole request in time")):
                return super().read_request(raw_requestline)
        except OSError as error:
            raise ValueError(str(error)) from None
