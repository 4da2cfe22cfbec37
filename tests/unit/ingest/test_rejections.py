"""Every drop is counted, and the log is limited."""

import contextlib
import logging
import time

import pytest
from prometheus_client import REGISTRY

from relay.hosts.rejected import RejectedFrames
from relay.ingest import rejections
from relay.ingest.rejections import LINES_PER_MINUTE, Missed, Rejections
from relay.kit import metrics
from tests.support.hosts import known_host

NOTHING_NOTED = Missed(lambda *_: None)


def dropped(reason: str) -> float:
    return float(metrics.EVENTS_DROPPED.labels(reason)._value.get())


def test_every_drop_is_counted_and_the_first_of_its_kind_is_news(caplog: pytest.LogCaptureFixture) -> None:
    book = Rejections(RejectedFrames(), NOTHING_NOTED)
    one, other = known_host(id=1, hostname="a.example"), known_host(id=2, hostname="b.example")
    before = dropped("wrong-host")
    with caplog.at_level(logging.DEBUG):
        for seq in range(100):
            book.note(one, "wrong-host", "did:web:x.example", seq)
        book.note(one, "rev-future", "did:web:x.example", 100)
        book.note(other, "wrong-host", "did:web:x.example", 1)
    assert dropped("wrong-host") - before == 101
    # Something of an earlier test may still have a word to say.
    records = [record for record in caplog.records if record.name == rejections.__name__]
    lines = [(record.levelno, record.getMessage()) for record in records]
    assert len(lines) == 102 and all("did=did:web:x.example" in line for _, line in lines)
    news = [line for level, line in lines if level == logging.INFO]
    assert [line.split("reason=")[1].split(" did=")[0] for line in news] == [
        "wrong-host host=a.example",
        "rev-future host=a.example",
        "wrong-host host=b.example",
    ]
    assert one.drops.last_day(time.time()) == {"wrong-host": 100, "rev-future": 1}
    assert other.drops.last_day(time.time()) == {"wrong-host": 1}


def test_a_name_of_megabytes_is_neither_kept_nor_logged(caplog: pytest.LogCaptureFixture) -> None:
    frames = RejectedFrames()
    host = known_host(id=1)
    with caplog.at_level(logging.DEBUG):
        Rejections(frames, NOTHING_NOTED).note(host, "account-did", "x" * 4_000_000, 1, "y" * 4_000_000, b"z")
    (kept,) = frames.of_host(1)
    assert len(kept.did or "") <= 300 and len(kept.detail) <= 300
    assert len(caplog.messages) == 1 and len(caplog.messages[0]) < 1000


def test_trouble_of_all_hosts_at_once_is_few_lines(caplog: pytest.LogCaptureFixture) -> None:
    book = Rejections(RejectedFrames(), NOTHING_NOTED)
    with caplog.at_level(logging.INFO):
        for number in range(500):
            book.note(known_host(id=number, hostname=f"h{number}.example"), "rev-future", "did:web:x.example", 1)
    assert len(caplog.records) == LINES_PER_MINUTE


def test_replayed_events_are_counted_but_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    before = dropped("rev-old")
    host = known_host()
    Rejections(RejectedFrames(), NOTHING_NOTED).note(host, "rev-old", "did:web:x.example", 1)
    assert host.drops.last_day(time.time()) == {}
    assert dropped("rev-old") == before + 1 and not caplog.records


def test_the_first_bug_is_a_rise_for_the_alert() -> None:
    with contextlib.suppress(KeyError):
        metrics.EVENTS_DROPPED.remove("internal-error")
    Rejections(RejectedFrames(), NOTHING_NOTED)
    assert REGISTRY.get_sample_value("relay_events_dropped_total", {"reason": "internal-error"}) == 0


def test_the_frame_is_kept_but_not_of_what_a_takedown_hides() -> None:
    frames, host = RejectedFrames(), known_host()
    rejections = Rejections(frames, NOTHING_NOTED)
    rejections.note(host, "op-path", "did:web:x.example", 7, "a//b", b"frame")
    rejections.note(host, "message-too-big", None, None, "", b"beginning", 6_000_000)
    rejections.note(host, "account-takendown", "did:web:x.example", 8, "", b"hidden")
    rejections.note(host, "duplicate", "did:web:x.example", 7, "", b"frame")
    taken_down, big, wrong = frames.of_host(host.id)
    assert (wrong.reason, wrong.detail, wrong.did, wrong.seq) == ("op-path", "a//b", "did:web:x.example", 7)
    assert (wrong.size, wrong.frame) == (5, b"frame")
    assert (big.size, big.frame) == (6_000_000, b"beginning")
    assert (taken_down.reason, taken_down.frame) == ("account-takendown", b"")
