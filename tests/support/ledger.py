"""What hosts will send, made in advance, so that a consumer's events can be held against all of it."""

from __future__ import annotations

import random
from typing import NamedTuple, TypeAlias

from tests.support.repo import RepoBuilder, SigningKey, account_did, create

HOSTS = ("one.test", "two.test")
ACCOUNTS_PER_HOST = 10
REJECTED = 0.03


class Entry(NamedTuple):
    """An event of a host: its frame, and what an ingest would find out about it. `data` is None for no commit."""

    seq: int
    frame: bytes
    data: bytes | None
    rejected: bool


Ledger: TypeAlias = dict[str, list[Entry]]


def make_ledger(events: int, chance: random.Random, accounts_per_host: int = ACCOUNTS_PER_HOST) -> Ledger:
    """`events` in all, by host. Every event has a time of its own, by which it is known again."""
    ledger: Ledger = {}
    key = SigningKey.create("k256")
    for number, host in enumerate(HOSTS):
        repos = [
            RepoBuilder(account_did(uid), key, start_us=1_750_000_000_000_000 + uid * 10**12)
            for uid in range(number * accounts_per_host, (number + 1) * accounts_per_host)
        ]
        entries, seq = [], 0
        for _ in range(events // len(HOSTS)):
            seq += chance.choice((1, 1, 1, 2, 7))
            repo = chance.choice(repos)
            kind = chance.random()
            if kind < 0.8 or not repo.data:
                commit = repo.commit(create(f"app.bsky.feed.post/{seq}", {"text": "x" * chance.randint(1, 3000)}))
                entries.append(Entry(seq, commit.frame(seq), repo.data, chance.random() < REJECTED))
                continue
            repo.micros += 1000
            frame = repo.identity_frame(seq)
            if kind < 0.9:
                active = chance.random() < 0.5
                frame = repo.account_frame(seq, active=active, status=None if active else "deactivated")
            entries.append(Entry(seq, frame, None, chance.random() < REJECTED))
        ledger[host] = entries
    return ledger
