"""Accounts that misbehave wait longer and longer, others do not wait."""

import logging

import pytest

from relay.ingest.penalties import CHARGES_SECONDS, FREE_CHARGES, LONGEST_DELAY_SECONDS, Penalties

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def test_the_first_offences_are_free_then_the_delay_doubles_up_to_a_bound() -> None:
    book = Penalties()
    charged = book.charged
    assert DID not in charged
    for _ in range(FREE_CHARGES):
        book.charge(DID)
        assert DID in charged
    assert book.owed(DID) == 0
    delays = []
    for _ in range(20):
        book.charge(DID)
        delays.append(book.owed(DID))
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays[-1] == LONGEST_DELAY_SECONDS
    assert book.owed("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb") == 0


def test_offences_are_forgiven_ten_minutes_after_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many there are: one every minute must not add up for ever."""
    now = 1000.0
    monkeypatch.setattr("relay.ingest.penalties.time.monotonic", lambda: now)
    book = Penalties()
    for _ in range(3 * FREE_CHARGES):
        now += 60.0
        book.charge(DID)
        assert book.owed(DID) == 0
    now += CHARGES_SECONDS - 60.0
    for _ in range(FREE_CHARGES + 1):
        book.charge(DID)
    assert book.owed(DID) > 0
    now += CHARGES_SECONDS
    assert book.owed(DID) == 0


def test_the_log_names_an_account_once(caplog: pytest.LogCaptureFixture) -> None:
    book = Penalties()
    with caplog.at_level(logging.INFO):
        for _ in range(3 * FREE_CHARGES):
            book.charge(DID)
    assert [DID in record.getMessage() for record in caplog.records] == [True]


def test_the_charges_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.ingest.penalties.CHARGES_CAPACITY", 10)
    book = Penalties()
    for number in range(100):
        for _ in range(FREE_CHARGES + 1):
            book.charge(f"did:web:{number}.example")
    assert sum(book.owed(f"did:web:{number}.example") > 0 for number in range(100)) == 10
    assert book.owed("did:web:99.example") > 0
