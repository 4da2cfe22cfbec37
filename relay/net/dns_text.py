"""The TXT records of a name, in which handles are: the standard library cannot look them up.

One question over UDP to each of the machine's own name servers in turn. The operator chose these, as for every other
name that is looked up; what they answer is bounded and never followed. Must not know what the texts mean.
"""

from __future__ import annotations

import secrets
import socket
import struct
import time
from collections.abc import Sequence
from pathlib import Path

from relay.kit.errors import AddressRefused

RESOLV_CONF = Path("/etc/resolv.conf")
PORT = 53
MAX_ANSWER = 4096
MAX_RECORDS = 50
MAX_SERVERS = 3
NO_SUCH_NAME = 3

_TXT, _IN, _OPT = 16, 1, 41
_RECURSION_WANTED = 0x0100
_TRUNCATED = 0x0200

Server = tuple[str, int]


def text_records(name: str, timeout: float, servers: Sequence[Server] | None = None) -> list[str]:
    """The TXT records of `name`, each in one piece; none when there is no such name.

    `servers` are the machine's own when they are not given. Raises AddressRefused `name-unresolved` when no server
    answers within `timeout` seconds together, or only with a failure or a part.
    """
    asked = list(machines_servers() if servers is None else servers)[:MAX_SERVERS]
    deadline = time.monotonic() + timeout
    failure = "the machine has no name server"
    for tried, server in enumerate(asked):
        left = deadline - time.monotonic()
        if left <= 0:
            break
        try:
            return _ask(server, name, left / (len(asked) - tried))
        except (OSError, ValueError, struct.error, IndexError) as error:
            failure = f"{server[0]}: {error}"
    raise AddressRefused("name-unresolved", f"{name}: {failure}")


def machines_servers() -> list[Server]:
    """The name servers that the machine is set up with."""
    try:
        lines = RESOLV_CONF.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    words = [line.split() for line in lines]
    return [(found[1], PORT) for found in words if len(found) > 1 and found[0] == "nameserver"]


def _ask(server: Server, name: str, timeout: float) -> list[str]:
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    question_id = secrets.randbelow(1 << 16)
    deadline = time.monotonic() + timeout
    with socket.socket(family, socket.SOCK_DGRAM) as asking:
        # Only this server's answers are taken.
        asking.connect(server)
        asking.send(_question(question_id, name))
        while True:
            asking.settimeout(max(0.001, deadline - time.monotonic()))
            answer = asking.recv(MAX_ANSWER)
            if len(answer) >= 12 and struct.unpack_from("!H", answer)[0] == question_id:
                return _texts(answer)


def _question(question_id: int, name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("ascii").split(b".")) + b"\0"
    head = struct.pack("!6H", question_id, _RECURSION_WANTED, 1, 0, 0, 1)
    # EDNS: answers may be longer than 512 bytes.
    return head + labels + struct.pack("!2H", _TXT, _IN) + b"\0" + struct.pack("!2HIH", _OPT, MAX_ANSWER, 0, 0)


def _texts(answer: bytes) -> list[str]:
    _, flags, questions, answers, *_ = struct.unpack_from("!6H", answer)
    code = flags & 0xF
    if code == NO_SUCH_NAME:
        return []
    if code:
        raise ValueError(f"the name server answers with code {code}")
    if flags & _TRUNCATED:
        raise ValueError("the answer is too long")
    position = 12
    for _ in range(min(questions, 1)):
        position = _after_name(answer, position) + 4
    found: list[str] = []
    for _ in range(min(answers, MAX_RECORDS)):
        position = _after_name(answer, position)
        kind, _, _, length = struct.unpack_from("!2HIH", answer, position)
        position += 10
        if kind == _TXT:
            found.append(_joined(answer[position : position + length]))
        position += length
    return found


def _after_name(answer: bytes, position: int) -> int:
    """The position behind a name, whose pointers need not be followed for that."""
    while True:
        length = answer[position]
        if length >= 0xC0:
            return position + 2
        position += 1 + length
        if not length:
            return position


def _joined(data: bytes) -> str:
    """A record's strings, of at most 255 bytes each, as one text."""
    parts, position = [], 0
    while position < len(data):
        length = data[position]
        parts.append(data[position + 1 : position + 1 + length])
        position += 1 + length
    return b"".join(parts).decode("utf-8", "replace")
