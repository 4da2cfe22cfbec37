"""What a parser may spend on one hostile input: a second and 64 MB."""

import time
import tracemalloc
from collections.abc import Callable

from relay.atproto.errors import ProtocolError

MAX_SECONDS = 1.0
MAX_BYTES = 64 << 20


def assert_cheap(parse: Callable[[bytes], object], data: bytes) -> None:
    """Parse `data` for time and again for memory; a refusal is fine, any other error is not."""
    # The machine may be busy with something else, so a slow run is given a second chance.
    assert _seconds(parse, data) < MAX_SECONDS or _seconds(parse, data) < MAX_SECONDS
    tracemalloc.start()
    try:
        _outcome(parse, data)
        assert tracemalloc.get_traced_memory()[1] < MAX_BYTES
    finally:
        tracemalloc.stop()


def _seconds(parse: Callable[[bytes], object], data: bytes) -> float:
    started = time.process_time()
    _outcome(parse, data)
    return time.process_time() - started


def _outcome(parse: Callable[[bytes], object], data: bytes) -> object:
    try:
        return parse(data)
    except ProtocolError as error:
        return error
