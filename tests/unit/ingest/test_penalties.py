"""Accounts that misbehave wait longer and longer; the others do not wait."""

import pytest

from relay.ingest import penalties
from relay.ingest.penalties import Penalties

DID = "did:plc:aaaaaaaaaaaaaaaaaaaaaaaa"


def test_the_first_offences_are_free_then_the_delay_doubles_up_to_a_bound() -> None:
    book = Penalties()
    for _ in range(penalties.FREE_CHARGES):
        book.charge(DID)
    assert book.owed(DID) == 0
    delays = []
    for _ in range(20):
        book.charge(DID)
        delays.append(book.owed(DID))
    assert delays[:3] == [0.5, 1.0, 2.0]
    assert delays[-1] == penalties.LONGEST_DELAY_SECONDS
    assert book.owed("did:plc:bbbbbbbbbbbbbbbbbbbbbbbb") == 0


def test_the_log_names_an_account_once(caplog: pytest.LogCaptureFixture) -> None:
    book = Penalties()
    for _ in range(3 * penalties.FREE_CHARGES):
        book.charge(DID)
    assert [DID in record.getMessage() for record in caplog.records] == [True]


def test_the_book_is_bounded(monkeypatch) -> None:
    monkeypatch.setattr(penalties, "CAPACITY", 10)
    book = Penalties()
    for number in range(100):
        book.charge(f"did:web:{number}.example")
    assert len(book._charges) == 10
    for number in range(100):
        for _ in range(penalties.FREE_CHARGES + 1):
            book.charge(f"did:web:{number}.example")
    assert len(book._charged_often) <= 10 and book.owed("did:web:99.example") > 0
