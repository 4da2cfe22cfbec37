"""The traffic of a network, built once: for each host its frames in order, signed and ready to send.

Deterministic by its parameters, and kept in a cache folder whose name says what it was made from. Hosts and accounts
are heavy-tailed, repositories have 20 to 3,000 records before the first event (log-uniform), one account in ten signs
with p256, one event in a hundred is an `#identity` or `#account`. The index (which account and rev each event is) is
stored apart from the frames, so that consumers need not load those.
"""

from __future__ import annotations

import hashlib
import pickle
import random
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from tests.bench import building
from tests.bench.network import copies
from tests.bench.network.copies import Template
from tests.support import repo
from tests.support.repo import RepoBuilder, SigningKey, Write, account_did, create, delete, tid, update

POST, LIKE, REPOST, FOLLOW = "app.bsky.feed.post", "app.bsky.feed.like", "app.bsky.feed.repost", "app.bsky.graph.follow"
PROFILE = "app.bsky.actor.profile/self"
CREATED = "2025-06-15T12:00:00.000Z"


class Shape(NamedTuple):
    """What the traffic is made from. `events` counts those after each account's first, `records` is the most that a
    repository has before; `commits_only` leaves out `#identity` and `#account`. `templates`: so many repositories are
    grown, whose commits all accounts make in turn; 0: each account grows its own, which takes far longer.
    """

    hosts: int
    accounts: int
    events: int
    seed: int
    records: int = 3000
    commits_only: bool = False
    templates: int = 0


class Account(NamedTuple):
    did: str
    curve: str
    number: int

    def key(self) -> SigningKey:
        return SigningKey.create(self.curve, self.number)


class Event(NamedTuple):
    """One event as the consumers' check knows it; `rev` is empty when it is no commit."""

    did: str
    kind: str
    rev: str


class HostIndex(NamedTuple):
    """One host: its accounts and all its events. The first `len(accounts)` events are the first of each account."""

    accounts: list[Account]
    events: list[Event]

    def due(self, position: int) -> float:
        """When event `position` is due, as a share of the whole run: 0 at its begin, 1 at its end."""
        first = len(self.accounts)
        return (position - first + 0.5) / (len(self.events) - first)


def load_or_build(shape: Shape, cache: Path) -> Path:
    """The folder that holds this traffic, built first when it is not there."""
    sources = [Path(__file__), Path(repo.__file__), Path(copies.__file__)]
    made_from = b"".join(source.read_bytes() for source in sources) + repr(shape).encode()
    folder = cache / f"traffic-{hashlib.sha256(made_from).hexdigest()[:16]}"
    if not (folder / "index").exists():
        folder.mkdir(parents=True, exist_ok=True)
        what = f"the traffic of {shape.hosts:,} hosts and {shape.accounts:,} accounts"
        index = building.build(what, partial(_build_host, shape, folder), range(shape.hosts))
        (folder / "index").write_bytes(pickle.dumps(index))
    return folder


def index_of(folder: Path) -> list[HostIndex]:
    return list(pickle.loads((folder / "index").read_bytes()))


def frames_of(folder: Path, host: int) -> list[bytes]:
    """A host's events as WebSocket frames; the event at position p has seq p + 1."""
    return list(pickle.loads((folder / f"host-{host}").read_bytes()))


def _share(total: int, host: int, hosts: int) -> int:
    """A host's part of `total` when parts fall off as 1/rank; one at least."""
    return max(1, round(total / (host + 1) / sum(1 / rank for rank in range(1, hosts + 1))))


def _build_host(shape: Shape, folder: Path, host: int) -> HostIndex:
    chance = random.Random(f"{shape.seed} {host}")
    count = _share(shape.accounts, host, shape.hosts)
    numbers = [shape.seed << 40 | host << 20 | number for number in range(count)]
    accounts = [Account(account_did(n), "p256" if chance.random() < 0.1 else "k256", n) for n in numbers]
    holders = [_holder(account, chance, shape) for account in accounts]
    weights = [1 / rank for rank in range(1, count + 1)]
    chosen = holders + chance.choices(holders, weights, k=_share(shape.events, host, shape.hosts))
    events, frames = [], []
    for seq, holder in enumerate(chosen, 1):
        event, frame = holder.act(seq, always_commit=shape.commits_only or seq <= count)
        events.append(event)
        frames.append(_websocket(frame))
    (folder / f"host-{host}").write_bytes(pickle.dumps(frames))
    return HostIndex(accounts, events)


def _holder(account: Account, chance: random.Random, shape: Shape) -> _Holder:
    if not shape.templates:
        return _Holder(account, chance, shape.records)
    return _Copy(account, chance, _template(shape.seed, account.number % shape.templates, shape.records))


@cache
def _template(seed: int, number: int, records: int) -> Template:
    """The same in each process that builds hosts."""
    account = Account(account_did(-1 - number), "k256", number)
    holder = _Holder(account, random.Random(f"{seed} template {number}"), records)
    return Template(holder.repo, holder.writes)


class _Holder:
    """An account that acts as people do: mostly likes, some posts, follows, deletions, now and then a batch."""

    def __init__(self, account: Account, chance: random.Random, most_records: int) -> None:
        self.chance = chance
        self.repo = RepoBuilder(account.did, account.key())
        self.paths = self._new_paths()
        records = int(20 * (most_records / 20) ** chance.random())
        self.repo.begin(
            create(PROFILE, {"$type": "app.bsky.actor.profile", "displayName": "someone"}),
            *(self._create() for _ in range(records)),
        )

    def act(self, seq: int, *, always_commit: bool) -> tuple[Event, bytes]:
        """The next event and its frame."""
        did, luck = self.repo.did, self.chance.random()
        if luck < 0.005 and not always_commit:
            return Event(did, "identity", ""), self.repo.identity_frame(seq)
        if luck < 0.01 and not always_commit:
            return Event(did, "account", ""), self.repo.account_frame(seq)
        rev, frame = self._commit(seq)
        return Event(did, "commit", rev), frame

    def _commit(self, seq: int) -> tuple[str, bytes]:
        commit = self.repo.commit(*self.writes())
        return self.repo.rev, commit.frame(seq)

    def writes(self) -> list[Write]:
        """Of the next commit."""
        luck = self.chance.random()
        if luck < 0.08 and len(self.repo.records) > 1:
            return [delete(next(path for path in reversed(self.repo.records) if path != PROFILE))]
        if luck < 0.11:
            return [update(PROFILE, {"$type": "app.bsky.actor.profile", "displayName": f"someone {luck}"})]
        if luck < 0.14:
            return [self._create() for _ in range(self.chance.randint(2, 10))]
        return [self._create()]

    def _create(self) -> Write:
        collection = self.chance.choices([LIKE, POST, FOLLOW, REPOST], [60, 24, 11, 5])[0]
        record: dict[str, object] = {"$type": collection, "createdAt": CREATED}
        if collection == POST:
            record |= {"text": "word " * self.chance.randint(4, 60), "langs": ["en"]}
        elif collection == FOLLOW:
            record |= {"subject": account_did(self.chance.getrandbits(40))}
        else:
            uri = f"at://{account_did(self.chance.getrandbits(40))}/{POST}/3l{self.chance.getrandbits(50):011x}"[:70]
            record |= {"subject": {"uri": uri, "cid": "bafyrei" + f"{self.chance.getrandbits(200):052x}"}}
        return create(f"{collection}/{next(self.paths)}", record)

    def _new_paths(self) -> Iterator[str]:
        """Record keys as PDSs make them: TIDs, a while apart."""
        micros = 1_700_000_000_000_000
        while True:
            micros += self.chance.randint(1_000_000, 3_600_000_000)
            yield tid(micros, 7)


class _Copy(_Holder):
    """An account that makes a template's commits as its own."""

    def __init__(self, account: Account, chance: random.Random, template: Template) -> None:
        self.chance = chance
        self.repo = RepoBuilder(account.did, account.key())
        self._template = template
        self._commits = 0

    def _commit(self, seq: int) -> tuple[str, bytes]:
        self._commits += 1
        return self._template.commit(self._commits - 1, self.repo.did, self.repo.key, seq)


def _websocket(payload: bytes) -> bytes:
    """A whole unmasked binary frame, as a server sends it."""
    length = len(payload)
    if length < 126:
        return bytes((0x82, length)) + payload
    if length < 1 << 16:
        return b"\x82\x7e" + length.to_bytes(2) + payload
    return b"\x82\x7f" + length.to_bytes(8) + payload
