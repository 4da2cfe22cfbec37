"""Sessions: who is found, for how long, and how many there can be."""

from __future__ import annotations

from relay.dash.access import MAX_SESSIONS, SESSION_SECONDS, Notice, Sessions


def test_a_session_is_found_until_its_time_is_over() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    session_id = sessions.open()
    now = SESSION_SECONDS - 1.0
    found = sessions.find(session_id)
    assert found is not None and found.notice is None
    # Looking does not make it longer.
    now = SESSION_SECONDS + 1.0
    assert sessions.find(session_id) is None


def test_ids_and_tokens_are_long_and_never_the_same() -> None:
    sessions = Sessions()
    ids = [sessions.open() for _ in range(50)]
    tokens = {found.csrf for one in ids if (found := sessions.find(one))}
    assert len(set(ids) | tokens) == 100 and min(map(len, [*ids, *tokens])) >= 43


def test_a_closed_session_is_gone_and_closing_it_again_is_nothing() -> None:
    sessions = Sessions()
    session_id = sessions.open()
    sessions.close(session_id)
    sessions.close(session_id)
    assert sessions.find(session_id) is None


def test_there_is_a_bound_and_the_oldest_goes_first() -> None:
    now = 0.0
    sessions = Sessions(lambda: now)
    ids = []
    for number in range(MAX_SESSIONS + 1):
        now = float(number)
        ids.append(sessions.open())
    assert sessions.find(ids[0]) is None and sessions.find(ids[1]) and sessions.find(ids[-1])


def test_a_notice_is_told_once() -> None:
    sessions = Sessions()
    session = sessions.find(sessions.open())
    assert session is not None
    session.notice = Notice(True, "done")
    assert session.take_notice() == Notice(True, "done") and session.take_notice() is None
