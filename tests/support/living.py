"""Objects that are still alive although nothing of the relay should keep them."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def living(*kinds: type) -> list[Any]:
    """All objects of these kinds, those included that only a collection of garbage would take away."""
    return [one for one in gc.get_objects() if isinstance(one, kinds)]


@contextmanager
def without_collections() -> Iterator[None]:
    """With the collector switched off: in a relay it walks what has become old only after hours."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
