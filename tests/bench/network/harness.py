"""What the benches of the whole relay have in common: starting its three sides, waiting, and the result.

The fleet and the consumers are processes of their own (`fleet`, `consumers`); the relay is one that is started on an
empty folder, or one that runs already. Used by `__main__` and by `tests.bench.storm`.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.child import Child
from tests.support.relay_process import RELAY, ROOT, RelayProcess

CACHE = ROOT / ".cache" / "bench"
MODULE = "tests.bench.network"

# What a report must not have any of.
WRONG = ("missing", "unexpected_or_repeated", "out_of_order", "seq_not_rising", "connections_lost")


def add_relay_options(parser: argparse.ArgumentParser) -> None:
    """Which relay is measured, for `relay_for`."""
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
def work_folder() -> Iterator[Path]:
    """An empty folder for a relay's data, gone afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="relay-", dir=CACHE))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def start_fleet(
    traffic: Sequence[Path], *, plc_port: int = 0, plc_latency: float = 0.0, plc_failures: float = 0.0
) -> Child:
    """The fleet that serves `traffic`, once it does; its first message has the addresses."""
    options = [f"--plc-port={plc_port}", f"--plc-latency={plc_latency}", f"--plc-failures={plc_failures}"]
    fleet = Child([sys.executable, "-m", f"{MODULE}.fleet", *options, *traffic], cwd=ROOT)
    fleet.wait_for('"plc"', 300)
    return fleet


def start_consumers(relay: RelayProcess, count: int, traffic: Sequence[Path]) -> Child:
    """`count` consumers of the relay, connected; they check `traffic`."""
    consumers = Child([sys.executable, "-m", f"{MODULE}.consumers", relay.url, str(count), *traffic], cwd=ROOT)
    consumers.wait_for('"connected"', 120)
    return consumers


def crawl(relay: RelayProcess, fleet: Child) -> None:
    """Have the relay subscribe to every host of the fleet, and wait until it is."""
    hosts = fleet.messages[0]["hosts"]
    for host in hosts:
        relay.admin("pds/requestCrawl", {"hostname": host})
    relay.wait_connected(len(hosts), timeout=60 + len(hosts) / 20)


def relay_for(options: argparse.Namespace, folder: Path, plc: str) -> RelayProcess:
    """The relay under test. One that is started here has limits that no host of the fleet reaches."""
    settings = {
        "RELAY_PLC_HOST": plc,
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
    else:
        relay.start()
    return relay


def wait_seen(consumers: Child, field: str, count: int, patience: float) -> bool:
    """Wait until `field` of the consumers' progress is `count`; False when nothing has come for `patience` seconds."""
    seen = 0
    while seen < count:
        try:
            consumers.wait_until(lambda: latest(consumers, field) > seen, patience)  # noqa: B023
        except AssertionError:
            return False
        seen = latest(consumers, field)
    return True


def latest(consumers: Child, field: str) -> int:
    return int(next((message[field] for message in reversed(consumers.messages) if field in message), 0))


def report(consumers: Child, **details: bool) -> dict[str, Any]:
    """What the consumers found."""
    consumers.send({"report": True, **details})
    consumers.wait_for('"report"', 60)
    return dict(next(message["report"] for message in consumers.messages if "report" in message))


def stop(relay: RelayProcess | None, *children: Child | None) -> None:
    """End the relay in order if it was started here, and all else however it takes."""
    if relay and relay.child and relay.child.running:
        relay.stop()
    for child in children:
        if child:
            child.close()
