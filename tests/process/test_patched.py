"""What `patch` makes of gevent, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SPAWNS = """
from relay.patched import patch
patch()
import gevent
print(gevent.spawn(int).spawning_stack)
"""


def test_a_greenlet_does_not_keep_who_spawned_it() -> None:
    assert subprocess.run([sys.executable, "-c", SPAWNS], capture_output=True, check=True).stdout == b"None\n"
