"""urllib3's connection pools with bounds: what a response may have in lines, and which kept connection is used again.

Made by `http`, which says how a connection is opened. Must not know which addresses may be connected to.
"""

from __future__ import annotations

import io
import select
import socket
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from typing import Any

from gevent.monkey import get_original
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from relay.net.tls_socket import TlsSocket

# All lines of one response: status, headers, chunk sizes, trailers. The standard library bounds a line, not their
# number, and a host that sends lines faster than they are read would hold up the hub for good.
MAX_LINE_BYTES = 64 << 10

_poll = get_original("select", "poll")


class _BoundedLines(io.BufferedReader):
    """A response's reader that counts what is read as lines, see MAX_LINE_BYTES; everything else has a length."""

    def __init__(self, raw: io.RawIOBase) -> None:
        super().__init__(raw)
        self._left = MAX_LINE_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        limit = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        line = super().readline(limit)
        self._left -= len(line)
        if self._left < 0:
            raise HTTPException("too many header or chunk lines")
        return line

    def read(self, size: int | None = -1, /) -> bytes:
        # The standard library takes a chunk of -1 bytes for all that ever comes.
        if size is None or size < 0:
            raise HTTPException("a chunk of less than no bytes")
        return super().read(size)


class _BoundedResponse(HTTPResponse):
    """An HTTPResponse that reads its lines through _BoundedLines."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        unbounded, self.fp = self.fp, _BoundedLines(sock.makefile("rb", buffering=0))
        unbounded.close()


def _is_quiet(connection: HTTPConnection) -> bool:
    """Whether a kept connection can be used again: there is nothing to read from it, not even its end.

    As urllib3 has it, but for the poll: gevent's costs ten times as much, and one that does not wait needs no hub.
    """
    if connection.sock is None or (isinstance(connection.sock, TlsSocket) and connection.sock.holds):
        return False
    asked = _poll()
    asked.register(connection.sock, select.POLLIN)
    return not asked.poll(0)


def pool_classes(connect: Callable[[HTTPConnection], socket.socket]) -> dict[str, type[HTTPConnectionPool]]:
    """The pool classes for both schemes, whose connections are made by `connect` and read within bounds."""

    def new_connection(connection: HTTPConnection) -> socket.socket:
        return connect(connection)

    class Plain(HTTPConnection):
        response_class = _BoundedResponse
        _new_conn = new_connection
        is_connected = property(_is_quiet)

    class Tls(HTTPSConnection):
        response_class = _BoundedResponse
        _new_conn = new_connection
        is_connected = property(_is_quiet)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = Tls

    return {"http": PlainPool, "https": TlsPool}
