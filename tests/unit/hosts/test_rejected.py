"""The last rejected frames: which are kept, which go first, and that each reason has its rule."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.hosts import rejected
from relay.hosts.rejected import BYTES_OF_FRAME, FRAMES_OF_HOST, RejectedFrames
from relay.hosts.rules import RULES

DROP_REASONS = Path(__file__).parents[3] / "docs" / "drop-reasons.md"


def keep(frames: RejectedFrames, host_id: int, seq: int, size: int = 100) -> None:
    frames.add(host_id, 1.0, "frame-field", "seq", "did:web:a.test", seq, size, b"x" * size)


def test_the_newest_fifty_of_each_host_are_kept() -> None:
    frames = RejectedFrames()
    for seq in range(120):
        keep(frames, seq % 2, seq)
    kept = frames.of_host(1)
    assert [frame.seq for frame in kept] == list(range(119, 119 - 2 * FRAMES_OF_HOST, -2))
    assert frames.get(1, kept[0].number) is kept[0] and frames.get(0, kept[0].number) is None
    assert frames.get(1, 1) is None and frames.of_host(7) == []


def test_bytes_are_bounded_for_a_frame_for_a_host_and_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejected, "BYTES_IN_ALL", 3 << 20)
    frames = RejectedFrames()
    keep(frames, 1, 1, 5_000_000)
    (one,) = frames.of_host(1)
    assert len(one.frame) == BYTES_OF_FRAME and one.size == 5_000_000
    for host_id in range(2, 7):
        for seq in range(60):
            keep(frames, host_id, seq, 60_000)
    # One that sends much crowds out its own, and the oldest of all go first.
    assert len(frames.of_host(6)) == (1 << 20) // 61_000
    assert frames.of_host(1) == frames.of_host(2) == []
    assert 2 << 20 < frames._bytes <= 3 << 20
    assert frames._bytes == sum(frames._bytes_of_host.values())
    assert set(frames._of_host) == set(frames._bytes_of_host)


def test_each_reason_has_its_rule_and_no_other() -> None:
    documented = re.findall(r"^\| `([a-z-]+)` \|", DROP_REASONS.read_text(encoding="utf-8"), re.MULTILINE)
    assert RULES.keys() == set(documented)
    for rule in RULES.values():
        assert rule.text.endswith(".") and rule.link.startswith("https://")
