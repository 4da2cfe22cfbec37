"""The network's traffic: it is built at once and by several processes, and is the same as built step by step."""

from __future__ import annotations

import pytest

from tests.bench import building
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, delete, tid


@pytest.mark.parametrize("records", [1, 2, 300])
def test_a_repository_that_began_at_once_is_as_one_that_grew(records: int) -> None:
    first = [create(f"app.bsky.feed.post/{tid(10**15 + number)}", {"text": str(number)}) for number in range(records)]
    grown, begun = (RepoBuilder(account_did(1), SigningKey.create()) for _ in range(2))
    grown.commit(*first)
    begun.begin(*first)
    assert list(begun.records.items()) == list(grown.records.items())
    for number in range(3):
        writes = [create(f"app.bsky.feed.like/{tid(10**15 + number)}", {}), delete(next(iter(grown.records)))]
        assert begun.commit(*writes).frame(1) == grown.commit(*writes).frame(1)


def test_hosts_are_built_in_their_order_and_it_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "SAY_SECONDS", 0.0)
    assert building.build("numbers", pow, range(5), [2] * 5) == [0, 1, 4, 9, 16]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "building numbers; it is kept for the next time"
    assert len(said) == 7 and said[5].startswith("5 of 5 hosts after ") and said[6].startswith("built after ")


def test_a_host_that_cannot_be_built_ends_the_building() -> None:
    with pytest.raises(ZeroDivisionError):
        building.build("numbers", divmod, [1, 1], [1, 0])
