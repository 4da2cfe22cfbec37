"""Promise 9: Bytes from outside are hostile until checked: length before allocation, depth before recursion, address
before connect.

Every parser of bytes from outside is given lengths that nothing stands behind, and nesting without end. Fuzzing goes on
from here (`tests/fuzz`); addresses are in promise 18.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from functools import partial

import pytest

from relay.net.websocket_reader import FrameReader
from tests.fuzz import targets
from tests.fuzz.test_fuzz import seeds
from tests.support.budget import assert_cheap

PLACES = 12
FORGED_BYTES = 2 << 20
DEEP = 200_000

LENGTHS = [
    *(bytes([major << 5 | 27]) + (1 << bits).to_bytes(8) for major in range(7) for bits in (31, 62)),
    *(bytes([major << 5 | 26]) + b"\xff\xff\xff\xff" for major in range(7)),
    b"\xff" * 9 + b"\x01",
    b"\xff\xff\xff\xff\x7f",
    b"9" * 400,
]
NESTED = [b"\x81", b"\xa1\x61a", b"\xd8\x2a", b"\x9f", b"[", b'{"a":', b"\xc1"]


def peak(parse: Callable[[], None]) -> int:
    """The bytes that a call has allocated at its height."""
    tracemalloc.reset_peak()
    before = tracemalloc.get_traced_memory()[0]
    parse()
    return tracemalloc.get_traced_memory()[1] - before


@pytest.mark.parametrize("name", targets.TARGETS)
def test_a_length_with_nothing_behind_it_takes_no_memory(name: str) -> None:
    chance = random.Random(1)
    tracemalloc.start()
    try:
        for seed in seeds()[name]:
            for place in [0, *(chance.randrange(len(seed)) for _ in range(PLACES))]:
                for length in LENGTHS:
                    for data in (seed[:place] + length + seed[place:], seed[:place] + length):
                        assert peak(partial(targets.run, name, data)) < FORGED_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", targets.TARGETS)
def test_nesting_without_end_ends(name: str) -> None:
    seed = seeds()[name][0]
    for opening in NESTED:
        for place in (0, 1, len(seed) // 2):
            assert_cheap(lambda data: targets.run(name, data), seed[:place] + opening * DEEP)


@pytest.mark.parametrize("masked", [False, True], ids=["server", "client"])
@pytest.mark.parametrize("opcode", range(16))
@pytest.mark.parametrize("length", [126, 1 << 20, 1 << 31, (1 << 62) + 1, (1 << 64) - 1])
def test_a_frame_is_given_no_room_before_it_comes(masked: bool, opcode: int, length: int) -> None:
    header = bytes([0x80 | opcode, 0x7F | masked << 7]) + length.to_bytes(8) + bytes(4 * masked)
    tracemalloc.start()
    try:
        assert peak(lambda: FrameReader(masked=masked, texts=True).feed(header + b"x" * 1_000)) < 100_000
    finally:
        tracemalloc.stop()
