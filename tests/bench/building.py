"""Traffic that is built once for the next times as well: one process for each core, and a word on how far it is.

Used by the traffic of `tests.bench.network` and `tests.bench.hosts`. Must not know what is built.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import Any, TypeVar

T = TypeVar("T")

SAY_SECONDS = 10.0


def build(what: str, of_host: Callable[..., T], *arguments: Iterable[Any]) -> list[T]:
    """`of_host` of each host's arguments, in their order. Says on stderr what is built, and each ten seconds how many
    hosts are done: thousands of accounts take minutes.
    """
    began = said = time.monotonic()
    _say(f"building {what}; it is kept for the next time")
    with ProcessPoolExecutor() as pool:
        futures = [pool.submit(of_host, *each) for each in zip(*arguments, strict=True)]
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            if time.monotonic() - said > SAY_SECONDS:
                said = time.monotonic()
                _say(f"{done} of {len(futures)} hosts after {said - began:.0f} s")
    _say(f"built after {time.monotonic() - began:.0f} s")
    return [future.result() for future in futures]


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
