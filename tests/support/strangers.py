"""Loopback servers that answer HTTP requests the way strangers might: any bytes, at any pace, over TCP or TLS.

    with RawServer(lambda sock: sock.sendall(b"HTTP/1.1 200 OK\\r\\n\\r\\n")) as server:
        http.get(server.url)

The handler gets each connection once its request head was read. `certificate(names)` makes a CA and a certificate
signed by it, for servers over TLS.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from gevent.server import StreamServer


class RawServer:
    """Counts `connections` and keeps every request head in `requests`."""

    def __init__(self, answer: Callable[[Any], None], tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self.connections = 0
        self.requests: list[bytes] = []
        self._tls = tls
        options: dict[str, Any] = {"ssl_context": tls} if tls else {}
        self._server = StreamServer(("127.0.0.1", 0), self._serve, **options)

    @property
    def port(self) -> int:
        return int(self._server.server_port or 0)

    @property
    def url(self) -> str:
        """By number, so that no name lookup is needed; by name over TLS."""
        return f"https://localhost:{self.port}" if self._tls else f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> RawServer:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(timeout=0)

    def _serve(self, sock: Any, _address: object) -> None:
        self.connections += 1
        try:
            while head := _head(sock):
                self.requests.append(head)
                self._answer(sock)
        except OSError:
            pass  # the client has had enough
        finally:
            sock.close()


def _head(sock: Any) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        part = sock.recv(4096)
        if not part:
            return b""
        head += part
    return head


def reply(body: bytes = b"", status: str = "200 OK", headers: Sequence[str] = ()) -> bytes:
    """A whole answer with its length."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def certificate(folder: Path, *names: str) -> tuple[Path, ssl.SSLContext]:
    """A CA's certificate file, and the context of a server that it says is `names`."""
    now = datetime.now(UTC)

    def issue(
        subject: str, key: ec.EllipticCurvePrivateKey, issuer: str, by: ec.EllipticCurvePrivateKey
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    ca = issue("test CA", ca_key, "test CA", ca_key)
    ca = ca.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    leaf = issue("server", key, "test CA", ca_key)
    leaf = leaf.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
    ca_file, chain_file = folder / "ca.pem", folder / "server.pem"
    ca_file.write_bytes(ca.sign(ca_key, SHA256()).public_bytes(Encoding.PEM))
    chain_file.write_bytes(
        leaf.sign(ca_key, SHA256()).public_bytes(Encoding.PEM)
        + key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain_file)
    return ca_file, context


def judge_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have default contexts judge the form of certificates, as some versions of Python do."""
    default = ssl.create_default_context

    def strict() -> ssl.SSLContext:
        context = default()
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", strict)
