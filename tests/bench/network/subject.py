"""The relay that a bench is about: ours, another one with the same settings, or one that runs already.

Used by `tests.bench.network` and `tests.bench.storm` for their command lines. Must not know what is measured.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.bench.network.measure import CACHE, MODULE, Fleet
from tests.bench.network.processes import Usage, tree_usage
from tests.support.http import call
from tests.support.relay_process import RELAY, RelayProcess


class Subject:
    """A relay by its `url` and its process."""

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        self._pid = pid

    def usage(self) -> Usage:
        """What its processes use; all zero when they are not known."""
        return tree_usage(self._pid)


def add_relay_options(parser: argparse.ArgumentParser) -> None:
    """Which relay, for `relay_under_test`."""
    relay = parser.add_argument_group("relay")
    relay.add_argument("--command", help="start this relay instead of ours, with the same settings in its environment")
    relay.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the started relay"
    )
    relay.add_argument("--profile", type=Path, help="sample the started relay's Python stacks into this file")
    relay.add_argument(
        "--url", help="use the relay that runs at this http address; its data must not know the accounts"
    )
    relay.add_argument("--password", default="", help="admin password of the relay at --url")
    relay.add_argument("--pid", type=int, help="process of the relay at --url, for its CPU and memory")
    relay.add_argument("--plc-port", type=int, default=0, help="fixed port of the fake PLC directory, for --url")


@contextmanager
def relay_under_test(options: argparse.Namespace, fleet: Fleet) -> Iterator[Subject]:
    """The relay, subscribed to the fleet's hosts; one that is started here is stopped afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="relay-", dir=CACHE))
    relay = _relay(options, folder, fleet)
    try:
        if not options.url:
            relay.start()
        if "RELAY_CLUSTER" in relay.settings:
            relay.wait_until(lambda: _is_active(relay))
        for host in fleet.hosts:
            relay.admin("pds/requestCrawl", {"hostname": host})
        relay.wait_connected(len(fleet.hosts), timeout=60 + len(fleet.hosts) / 20)
        yield Subject(relay.url, options.pid or (relay.child.process.pid if relay.child else 0))
    finally:
        if relay.child and relay.child.running:
            relay.stop()
        shutil.rmtree(folder)


def _is_active(relay: RelayProcess) -> bool:
    with suppress(OSError):
        return call(f"{relay.url}/_readyz?role=active").status == 200
    return False


def _relay(options: argparse.Namespace, folder: Path, fleet: Fleet) -> RelayProcess:
    """The relay's process, not started. One that is started here has limits that no host of the fleet reaches."""
    settings = {
        **fleet.trust,
        "RELAY_PLC_HOST": fleet.plc,
        "RELAY_DEFAULT_ACCOUNT_LIMIT": "10000000",
        "RELAY_NEW_HOSTS_PER_DAY_LIMIT": "100000",
        "LOG_LEVEL": "warn",
        **dict(pair.split("=", 1) for pair in options.set),
    }
    command: list[str | Path] = [RELAY, "serve"]
    if options.command:
        command = list(shlex.split(options.command))
    elif options.profile:
        command = [sys.executable, "-m", f"{MODULE}.profiled", options.profile.resolve(), "serve"]
    relay = RelayProcess(folder, settings, command)
    if options.url:
        relay.url, relay.password = options.url.rstrip("/"), options.password
    return relay


def tell(outcome: dict[str, Any], json_path: Path | None) -> None:
    """Print the figures as a table, and write them to `json_path`."""
    for name, value in outcome.items():
        print(f"{name.replace('_', ' '):32} {value}")
    if json_path:
        json_path.write_text(json.dumps(outcome, indent=2) + "\n")
