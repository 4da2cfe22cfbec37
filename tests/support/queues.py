"""What a relay shows of its queues, caches and sets, and what docs/metrics.md says of them."""

from __future__ import annotations

import re
from pathlib import Path

METRICS = Path(__file__).parents[2] / "docs" / "metrics.md"


def named() -> set[str]:
    """The `queue` labels that docs/metrics.md explains."""
    queues = METRICS.read_text(encoding="utf-8").split("## Queues")[1]
    return set(re.findall(r"^\| `([a-z-]+)` \|", queues, re.MULTILINE))


def check_queues(exposition: str) -> None:
    """Each size has a bound that it keeps; all that docs/metrics.md names are there, but for those of what is not
    switched on: a cluster, an edge, and the JSON stream.
    """
    sizes, capacities = (
        dict(re.findall(rf'^relay_queue_{what}{{queue="([a-z-]+)"}} (\S+)$', exposition, re.MULTILINE))
        for what in ("size", "capacity")
    )
    told = {name for name in named() if name.partition("-")[0] not in ("cluster", "edge", "json")}
    assert capacities.keys() == told, capacities.keys() ^ told
    assert sizes.keys() <= capacities.keys()
    for queue, size in sizes.items():
        assert 0 <= float(size) <= float(capacities[queue]), queue
        assert float(capacities[queue]) > 0 or queue == "forwards", queue
