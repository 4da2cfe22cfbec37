"""Commits for thousands of hosts, signed before the run, so that the run measures the relay and not their making.

Deterministic by its shape and kept in a cache folder. Hosts by 1/rank, the accounts of a host in turn, each commit one
new record. A frame's `time` is a placeholder: the fleet writes there when it sent the frame (`stamped`), which the
signature does not cover and the relay passes on, so that a consumer can tell how long the way was (`sent_at`).
"""

from __future__ import annotations

import hashlib
import pickle
import random
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.bench import building
from tests.support import repo
from tests.support.pds import websocket_frame
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, tid

UNSENT = "2000-01-01T00:00:00.000000Z"
_TIME_KEY = b"dtime\x78\x1b"


class Shape(NamedTuple):
    """Accounts and events of all hosts together."""

    hosts: int
    accounts: int
    events: int


class Owner(NamedTuple):
    """An account as the relay's table of identities has it."""

    did: str
    public_key: bytes


def order_of(shape: Shape) -> list[int]:
    """The host of each event, as they are sent."""
    weights = [1 / rank for rank in range(1, shape.hosts + 1)]
    return random.Random(1).choices(range(shape.hosts), weights, k=shape.events)


def load_or_build(shape: Shape, cache: Path) -> Path:
    """The folder that holds this traffic, built first when it is not there."""
    made_from = Path(__file__).read_bytes() + Path(repo.__file__).read_bytes() + repr(shape).encode()
    folder = cache / f"hosts-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not (folder / "owners").exists():
        folder.mkdir(parents=True, exist_ok=True)
        events = [0] * shape.hosts
        for host in order_of(shape):
            events[host] += 1
        total = sum(1 / rank for rank in range(1, shape.hosts + 1))
        counts = [max(1, round(shape.accounts / rank / total)) for rank in range(1, shape.hosts + 1)]
        firsts = [sum(counts[:host]) for host in range(shape.hosts)]
        what = f"the traffic of {shape.hosts:,} hosts and {shape.accounts:,} accounts"
        owners = building.build(what, partial(_build_host, folder), range(shape.hosts), firsts, counts, events)
        (folder / "owners").write_bytes(pickle.dumps(owners))
    return folder


def owners_of(folder: Path) -> list[list[Owner]]:
    """The accounts of each host."""
    return list(pickle.loads((folder / "owners").read_bytes()))


def frames_of(folder: Path, host: int) -> list[bytes]:
    """A host's WebSocket frames in the order of their seq, which begins at 1."""
    return list(pickle.loads((folder / f"host-{host}").read_bytes()))


def stamped(frame: bytes) -> bytes:
    """`frame` with the time of now."""
    at = frame.index(_TIME_KEY) + len(_TIME_KEY)
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode()
    return frame[:at] + now + frame[at + len(now) :]


def sent_at(frame: bytes) -> float | None:
    """When a frame was sent, in seconds since the epoch; None when it is none of these."""
    at = frame.find(_TIME_KEY) + len(_TIME_KEY)
    if at < len(_TIME_KEY):
        return None
    return datetime.fromisoformat(frame[at : at + len(UNSENT)].decode()).timestamp()


def _build_host(folder: Path, host: int, first: int, count: int, events: int) -> list[Owner]:
    repos = [_repo(first + number) for number in range(1, count + 1)]
    frames = []
    for seq in range(1, events + 1):
        record = {"$type": "app.bsky.feed.like", "seq": seq}
        owner = repos[seq % count]
        commit = owner.commit(create(f"app.bsky.feed.like/{tid(repo.EPOCH_US + seq)}", record))
        commit.fields["time"] = UNSENT
        frames.append(websocket_frame(commit.frame(seq)))
    (folder / f"host-{host}").write_bytes(pickle.dumps(frames))
    return [Owner(one.did, one.key.public) for one in repos]


def _repo(number: int) -> RepoBuilder:
    return RepoBuilder(account_did(number), SigningKey.create("k256", number))
