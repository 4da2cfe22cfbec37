"""What two relays sent, matched: what is lacking, what came first, what counts for nothing, and the bounds."""

from __future__ import annotations

import pytest

from relay.comparison import matching
from relay.comparison.matching import Matcher, Seen, accounts_of

DID = "did:plc:" + "a" * 24


def seen(mark: str, at: float, kind: str = "#commit", did: str = DID) -> Seen:
    return Seen(did, mark, kind, at)


def test_an_event_of_both_is_matched_and_the_first_one_leads() -> None:
    matcher = Matcher(since=0.0, patience=10.0)
    for number in range(100):
        first, second = ("ours", "theirs") if number < 90 else ("theirs", "ours")
        matcher.take(first, seen(str(number), 1.0))  # type: ignore[arg-type]
        matcher.take(second, seen(str(number), 1.0 + number / 1000))  # type: ignore[arg-type]
    matcher.settle(100.0, 50.0)
    assert matcher.matched == 100
    assert (matcher.leads["ours"].count, matcher.leads["theirs"].count) == (90, 10)
    assert matcher.leads["ours"].quantile(0.5) == pytest.approx(0.045)
    assert matcher.leads["ours"].quantile(0.99) == pytest.approx(0.089)
    assert matcher.leads["theirs"].quantile(1.0) == pytest.approx(0.099)
    assert not matcher.lacking["ours"].count and not matcher.lacking["theirs"].count


def test_what_comes_from_one_alone_is_lacking_at_the_other_once_it_is_late() -> None:
    matcher = Matcher(since=5.0, patience=10.0)
    matcher.take("theirs", seen("early", 4.0))
    matcher.take("theirs", seen("lost", 6.0))
    matcher.take("theirs", seen("lost too", 7.0, "#account"))
    matcher.take("ours", seen("mine", 7.0))
    matcher.take("theirs", seen("at the end", 30.0))
    assert matcher.is_open(20.0) and not matcher.is_open(5.5)
    matcher.settle(15.0, until=20.0)
    assert not matcher.lacking["ours"].count
    matcher.settle(60.0, until=20.0)
    assert dict(matcher.lacking["ours"].by_kind) == {"#commit": 1, "#account": 1}
    assert [event.mark for event in matcher.lacking["ours"].events] == ["lost", "lost too"]
    assert dict(matcher.lacking["theirs"].by_kind) == {"#commit": 1}


def test_a_sync_in_place_of_a_commit_is_the_same_event() -> None:
    matcher = Matcher(since=0.0, patience=10.0)
    matcher.take("ours", seen("rev", 1.0, "#sync"))
    matcher.take("theirs", seen("rev", 1.1, "#commit"))
    matcher.take("theirs", seen("other", 1.0, "#commit"))
    matcher.take("ours", seen("other", 1.1, "#sync"))
    assert matcher.matched == 2
    assert matcher.downgraded == {"ours": 2, "theirs": 0}


def test_memory_is_bounded_and_what_goes_is_said_to_be_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "MAX_WAITING", 10)
    monkeypatch.setattr(matching, "MAX_LACKING", 3)
    monkeypatch.setattr(matching, "MAX_LEADS", 5)
    matcher = Matcher(since=0.0, patience=10.0)
    for number in range(25):
        matcher.take("theirs", seen(str(number), 1.0))
    matcher.settle(100.0, 50.0)
    assert (matcher.undecided, matcher.lacking["ours"].count, len(matcher.lacking["ours"].events)) == (15, 10, 3)
    for number in range(100):
        matcher.take("ours", seen(str(number), 1.0))
        matcher.take("theirs", seen(str(number), 2.0))
    assert (matcher.leads["ours"].count, len(matcher.leads["ours"].seconds)) == (100, 5)


def test_the_accounts_with_the_most_events_are_asked_for() -> None:
    events = [seen(str(number), 1.0, did=f"did:plc:{letter * 24}") for number, letter in enumerate("abbcccb")]
    assert [did[8] for did in accounts_of(events, 2)] == ["b", "c"]
