"""Messages between the relay and its processes come whole and in order, however the socket cuts them."""

from __future__ import annotations

import random

import pytest

from relay.kit.messages import Inbox, encode

MESSAGES = [(), (1, "append", b"\x00" * 300), ([0.5, 0.25], [("a", None)]), {"of": True}, "ü\ud800"]


@pytest.mark.parametrize("seed", range(20))
def test_messages_come_whole_and_in_order(seed: int) -> None:
    rng = random.Random(seed)
    data, inbox = b"".join(map(encode, MESSAGES)), Inbox()
    taken: list[object] = []
    while data:
        size = rng.choice((1, 2, 3, 5, 50, 400))
        taken += inbox.feed(data[:size])
        data = data[size:]
    assert taken == MESSAGES
