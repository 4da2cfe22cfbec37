"""What the benchmark of the start measures with: copied traffic that verifies, and how far the head is behind."""

from __future__ import annotations

from pathlib import Path

from relay.atproto import frames
from relay.atproto.commit import verify_commit
from relay.atproto.crypto import parse_multikey
from tests.bench.network import traffic
from tests.bench.network.traffic import Shape
from tests.bench.startup.head import Watch
from tests.support.repo import EPOCH_US

NOW = EPOCH_US + 10**12


def test_accounts_that_copy_a_template_make_valid_commits_of_their_own(tmp_path: Path) -> None:
    shape = Shape(hosts=2, accounts=6, events=60, seed=1, records=30, commits_only=True, templates=2)
    folder = traffic.load_or_build(shape, tmp_path)
    dids: set[str] = set()
    for number, host in enumerate(traffic.index_of(folder)):
        keys = {account.did: parse_multikey(account.key().multikey) for account in host.accounts}
        before: dict[str, str] = {}
        for seq, (expected, frame) in enumerate(zip(host.events, traffic.frames_of(folder, number), strict=True), 1):
            event = frames.decode(frame[4:])
            assert isinstance(event, frames.Commit)
            assert (event.did, event.rev, event.seq) == (expected.did, expected.rev, seq)
            verify_commit(event, keys[event.did], NOW)
            assert event.rev > before.get(event.did, "")
            before[event.did] = event.rev
            dids.add(event.did)
    assert len(dids) == 6


def test_the_head_is_as_far_behind_as_its_slowest_event() -> None:
    watch = Watch()
    # It comes when 100 events are logged, and then waits two seconds for the 150th.
    for at, logged, seen in (
        (0.0, 100, 0),
        (1.0, 120, 20),
        (2.0, 150, 20),
        (3.0, 160, 40),
        (4.0, 170, 60),
        (5.0, 170, 70),
    ):
        watch.sample(logged, seen, at)
    assert watch.behind_seconds() == 2.0


def test_a_head_that_has_all_at_once_is_not_behind() -> None:
    watch = Watch()
    assert watch.behind_seconds() == 0.0
    for at in range(3):
        watch.sample(10 * at, 10 * at, float(at))
    assert watch.behind_seconds() == 0.0
