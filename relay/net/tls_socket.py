"""TLS over a connected socket, whose other side cannot hold up anybody else.

OpenSSL, when it reads a socket itself, returns with the first data: as long as there are session tickets, new keys or
the like to read it goes on, and a host can send these faster than they are read. Here it is given a small piece at a
time, and a side that makes work without sending data is read more slowly. `http` has its TLS context make these, for
its own connections and for `websocket_client`. Must not know what is sent.
"""

from __future__ import annotations

import errno
import ssl
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import gevent
from gevent import socket

from relay.kit.background import yield_hub

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer, WriteableBuffer

# How much is worked on at a time: two hundred tickets, some milliseconds.
PIECE_BYTES = 8 << 10
# What a record has beside its data; how much may come without any, as the first tickets; and how long is rested for
# each further byte: of tickets it is two microseconds of work.
RECORD_BYTES = 32
SPARE_BYTES = 32 << 10
BYTE_SECONDS = 1e-4
# Answers to what the other side asks for while it reads nothing.
MAX_UNSENT_BYTES = 16 << 10

# What OpenSSL reads and writes. All connections share the two, since nothing stays in them while others have their
# turn: they keep memory for the largest piece that they have held.
_incoming, _outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()


class TlsSocket(socket.socket):
    """A client's side. Takes over the descriptor of `sock`. The arguments are what SSLContext.wrap_socket passes on.

    Raises ssl.SSLError and other OSErrors as an SSLSocket does; an end without a goodbye is an ordinary end. With a
    timeout of 0, calls do not wait but for the rest that the other side's work costs. For the hub's thread alone.
    """

    __slots__ = ("_filled", "_fruitless", "_left", "_over", "_tls", "_unsent")

    def __init__(
        self,
        sock: socket.socket,
        *,
        _context: ssl.SSLContext,
        server_hostname: str,
        do_handshake_on_connect: bool = True,
        **_others: object,
    ) -> None:
        self._tls = _context.wrap_bio(_incoming, _outgoing, server_hostname=server_hostname)
        # What OpenSSL has not read yet, and what is not sent yet.
        self._left = self._unsent = b""
        self._over = False
        # Whether the last piece was a full one.
        self._filled = False
        # The bytes that came beyond data and what belongs to it.
        self._fruitless = 0
        timeout = sock.gettimeout()
        super().__init__(sock.family, sock.type, sock.proto, sock.fileno())
        sock.detach()
        self.settimeout(timeout)
        if do_handshake_on_connect:
            try:
                self.do_handshake()
            except BaseException:
                self.close()
                raise

    @property
    def holds(self) -> bool:
        """Whether there is something to read that has left the network; so has an end."""
        return self._over or bool(self._left or self._tls.pending())

    @property
    def more(self) -> bool:
        """Whether more may be read without waiting."""
        return self._filled or self.holds

    def do_handshake(self) -> None:
        """Shake hands; waits."""
        while True:
            try:
                self._call(self._tls.do_handshake)
                self._fruitless = 0
                return self._flush()
            except ssl.SSLWantReadError:
                self._flush()
            except ssl.SSLError:
                # Says why. What could not be sent is not the error.
                with suppress(OSError):
                    self._send_soon()
                raise
            if not self._fill():
                raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the other side closed the connection while shaking hands")
            # A side that is never done must not keep a deadline from coming.
            yield_hub()

    def recv(self, size: int = PIECE_BYTES, flags: int = 0) -> bytes:
        """Up to `size` bytes; none at the end. Raises BlockingIOError or ssl.SSLWantReadError for nothing yet."""
        buffer = bytearray(size)
        return bytes(memoryview(buffer)[: self.recv_into(buffer)])

    def recv_into(self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0) -> int:
        """As `recv`, into `buffer`; how many bytes."""
        with memoryview(buffer).cast("B") as whole, whole[: nbytes or None] as view:
            got = self._read(view) if self.holds else 0
            while not got and not self._over and self._fill():
                got = self._read(view)
                if not got and not self._over:
                    if self.timeout == 0.0:
                        raise ssl.SSLWantReadError(ssl.SSL_ERROR_WANT_READ, "no whole record yet")
                    yield_hub()
            return got

    def send(self, data: ReadableBuffer, flags: int = 0, timeout: Any = None) -> int:
        """Send all of `data`. With a timeout of 0 a part may follow with what is sent or read next."""
        written: int = self._call(self._tls.write, data)
        if self.timeout == 0.0:
            self._send_soon()
        else:
            self._flush()
        return written

    def sendall(self, data: ReadableBuffer, flags: int = 0) -> None:
        """Send all of `data`."""
        self._call(self._tls.write, data)
        self._flush()

    def getpeercert(self, binary_form: bool = False) -> Any:
        """The other side's certificate, as SSLSocket has it."""
        return self._tls.getpeercert(binary_form)

    def selected_alpn_protocol(self) -> str | None:
        """The protocol that was agreed on, if any."""
        return self._tls.selected_alpn_protocol()

    def version(self) -> str | None:
        """The version of TLS."""
        return self._tls.version()

    def _fill(self) -> bool:
        """Take the next piece from the network. False at its end."""
        self._filled = False
        if self._fruitless > SPARE_BYTES:
            fruitless, self._fruitless = self._fruitless, SPARE_BYTES
            gevent.sleep(BYTE_SECONDS * (fruitless - SPARE_BYTES))
        piece = _recv(self, PIECE_BYTES)
        size = len(piece)
        self._left += piece
        self._fruitless += size
        self._filled = size == PIECE_BYTES
        self._over = not size
        return not self._over

    def _call(self, do: Callable[..., Any], *arguments: Any) -> Any:
        """Have OpenSSL do something with what came and was not read. It finds nothing of other connections."""
        if self._left:
            _incoming.write(self._left)
            self._left = b""
        try:
            return do(*arguments)
        finally:
            if _incoming.pending:
                self._left = _incoming.read()
            if _outgoing.pending:
                self._unsent += _outgoing.read()

    def _read(self, view: memoryview) -> int:
        """Read into `view` what whole records there are; how many bytes. Notes the end."""
        try:
            return self._call(self._read_records, view)  # type: ignore[no-any-return]
        finally:
            if self._unsent:
                self._send_soon()

    def _read_records(self, view: memoryview) -> int:
        tls, got = self._tls, 0
        try:
            while True:
                size: int = tls.read(len(view) - got, view[got:])  # type: ignore[assignment]
                if not size:
                    self._over = True
                    return got
                got += size
                self._fruitless = max(0, self._fruitless - size - RECORD_BYTES)
                if got == len(view) or not (_incoming.pending or tls.pending()):
                    return got
        except ssl.SSLWantReadError:
            return got
        except ssl.SSLError:
            # The next call finds it again.
            if not got:
                raise
            return got

    def _flush(self) -> None:
        """Send what is to be sent."""
        left = memoryview(self._unsent)
        self._unsent = b""
        timeout = self.timeout
        end = None if timeout is None else time.monotonic() + timeout
        while left:
            left = left[_send(self, left) :]
            if left and end is not None and time.monotonic() > end:
                raise TimeoutError("timed out")

    def _send_soon(self) -> None:
        """Send what can be sent without waiting."""
        with suppress(BlockingIOError):
            self._unsent = self._unsent[_send(self, self._unsent, 0, 0.0) :]  # type: ignore[call-arg]
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise OSError(errno.ENOBUFS, "the other side asks for answers and does not read them")


# The network's side.
_recv, _send = socket.socket.recv, socket.socket.send
