"""TCP proxies on loopback that can be cut: what is open hangs, as with a cable that is pulled, until it is healed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.child import Child
from tests.support.http import free_ports

ROOT = Path(__file__).parents[2]


class Proxies:
    """A port for each of the ports that are to be reached: `ports[n]` leads to `targets[n]`."""

    def __init__(self, targets: Sequence[int], ports: Sequence[int] | None = None) -> None:
        self.ports = list(ports or free_ports(len(targets)))
        ways = [f"{port}={target}" for port, target in zip(self.ports, targets, strict=True)]
        self._child = Child([sys.executable, "-m", "tests.support.proxy_process", *ways], cwd=ROOT)
        self._child.wait_for("ready", 60)

    def cut(self, *numbers: int) -> None:
        """Let nothing through these."""
        self._order(numbers, whole=False)

    def heal(self, *numbers: int) -> None:
        """Let new connections through; those that hung are over."""
        self._order(numbers, whole=True)

    def close(self) -> None:
        self._child.close()

    def _order(self, numbers: Sequence[int], *, whole: bool) -> None:
        for number in numbers:
            self._child.send({"port": self.ports[number], "whole": whole})
