"""What an answer says of when to ask again, and its JSON."""

from __future__ import annotations

import math
import time

import pytest

from relay.net.http import Response

NOON = 1_782_388_800.0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 1000, math.inf),
        ("Thu, 25 Jun 2026 12:00:30 GMT", 30.0),
        ("Thu, 25 Jun 2026 11:59:30 GMT", 0.0),
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("\N{SUPERSCRIPT TWO}", None),
        ("\N{ARABIC-INDIC DIGIT TWO}", None),
        ("1, 2", None),
        ("Thu, 25 Jun 2026 12:00:30 +0000", None),
        ("tomorrow", None),
    ],
)
def test_when_to_ask_again(monkeypatch: pytest.MonkeyPatch, text: str, seconds: float | None) -> None:
    monkeypatch.setattr(time, "time", lambda: NOON)
    answer = Response(503, {"Retry-After": text}, b"")
    assert answer.retry_after(unsaid=7.0) == (7.0 if seconds is None else seconds)
    assert answer.retry_after(10.0) == min(seconds or 0.0, 10.0)
    assert Response(503, {}, b"").retry_after(unsaid=7.0) == 7.0


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 200_000, b'{"a":' * 200_000])
def test_what_is_no_json_object_is_none(body: bytes) -> None:
    assert Response(200, {}, body).json_object() is None
    assert Response(200, {}, b'{"a": 1}').json_object() == {"a": 1}
