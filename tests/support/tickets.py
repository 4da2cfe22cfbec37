"""A TLS server on loopback that sends session tickets without end, as fast as they can be written, and then a message.

The standard library has no way to send them: the records are made here, with the keys of the connection.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import gevent
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from gevent import socket

from tests.support.certificate import server_context
from tests.support.pds import websocket_frame

WORDS = websocket_frame(b"words")
_HANDSHAKE, _DATA = 22, 23
# A NewSessionTicket of RFC 8446: lifetime, age, no nonce, a ticket of one byte, no extensions. Many fit into a record.
_TICKET = bytes.fromhex("0400000e 00001c20 00000000 00 0001 74 0000")
TICKETS_BYTES = len(_TICKET) * 200


def context(certificate: Path, keys: Path) -> ssl.SSLContext:
    """A server's, that writes its secrets into the file `keys`."""
    made = server_context(certificate)
    made.minimum_version = ssl.TLSVersion.TLSv1_3
    made.num_tickets = 0
    made.keylog_filename = str(keys)
    return made


def flood(keys: Path, records: int) -> Callable[[Any], None]:
    """What serves one connection of that context: so many records of tickets, and the words."""

    def serve(sock: Any) -> None:
        seal = _sealer(_secret(keys))
        sent = b"".join(seal(number, _TICKET * 200, _HANDSHAKE) for number in range(records))
        # Past the server's own TLS, which knows nothing of these.
        _send_all(sock, sent + seal(records, WORDS, _DATA))

    return serve


def trickle(keys: Path, seconds: float) -> Callable[[Any], None]:
    """What serves one connection of that context: a ticket every so many seconds, without end."""

    def serve(sock: Any) -> None:
        seal = _sealer(_secret(keys))
        for number in count():
            _send_all(sock, seal(number, _TICKET, _HANDSHAKE))
            gevent.sleep(seconds)

    return serve


def _secret(keys: Path) -> bytes:
    """The server's, of the last connection."""
    lines = [line.split() for line in keys.read_text().splitlines() if line.startswith("SERVER_TRAFFIC_SECRET_0")]
    return bytes.fromhex(lines[-1][2])


def _sealer(secret: bytes) -> Callable[[int, bytes, int], bytes]:
    cipher, start = AESGCM(_expand(secret, b"key", 32)), _expand(secret, b"iv", 12)

    def seal(number: int, content: bytes, kind: int) -> bytes:
        nonce = bytes(one ^ other for one, other in zip(start, number.to_bytes(12), strict=True))
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2)
        return head + cipher.encrypt(nonce, content + bytes([kind]), head)

    return seal


def _expand(secret: bytes, label: bytes, length: int) -> bytes:
    name = b"tls13 " + label
    return HKDFExpand(SHA384(), length, length.to_bytes(2) + bytes([len(name)]) + name + b"\0").derive(secret)


def _send_all(sock: Any, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[socket.socket.send(sock, left) :]
