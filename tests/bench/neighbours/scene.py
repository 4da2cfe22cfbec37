"""A relay as a process, its honest hosts as another, and a consumer that knows when their commits came."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import gevent
from gevent import subprocess as green

from tests.bench.network.consumers import Checker, Consumer, did_of, rev_of
from tests.support.relay_process import RELAY, RelayProcess
from tests.support.wait import until

MODULE = "tests.bench.neighbours"
SERVE: list[str | Path] = [RELAY, "serve"]
PROFILED = "tests.bench.network.profiled"
SETTLE_SECONDS = 2.0
# Until every account is known; on a busy machine six times as long.
KNOWN_SECONDS = 60.0

Sent = tuple[str, str, float, bool]
"""DID, rev, when, and whether the account was new."""


class Process:
    """A process that takes lines on stdin and answers by one JSON line each."""

    def __init__(self, *arguments: str) -> None:
        self._process = green.Popen(
            [sys.executable, "-m", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.first = self.answer()

    def tell(self, line: str) -> None:
        """Send one line."""
        assert self._process.stdin
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def answer(self) -> Any:
        """The next line."""
        assert self._process.stdout
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Arrivals(Checker):
    """When the commits came, by DID and rev."""

    def __init__(self) -> None:
        super().__init__([])
        self.came: dict[tuple[str, str], float] = {}

    def take(self, frame: bytes, now: float) -> None:
        """One frame of the firehose."""
        if frame.find(b"#commit", 0, 24) > 0:
            self.came[did_of(frame, b"drepo"), rev_of(frame)] = now

    def lacking(self, sent: list[Sent]) -> list[Sent]:
        """What has not come yet."""
        return [each for each in sent if each[:2] not in self.came]

    def wait(self, sent: list[Sent], timeout: float) -> None:
        """Return when all has come, or after `timeout` seconds."""
        give_up = time.monotonic() + timeout
        while time.monotonic() < give_up and self.lacking(sent):
            gevent.sleep(0.5)


def add_options(parser: argparse.ArgumentParser, rate: float) -> None:
    """The honest load and the relay, for `scene`."""
    parser.add_argument("--hosts", type=int, default=20)
    parser.add_argument("--accounts", type=int, default=100)
    parser.add_argument("--rate", type=float, default=rate)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting for the relay")
    parser.add_argument("--profile", type=Path, help="sample the relay's Python stacks into this file")


@contextmanager
def scene(options: argparse.Namespace) -> Iterator[tuple[RelayProcess, Process, Arrivals]]:
    """The relay, its hosts and the consumer, once every account is known."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-neighbours-")))
        honest = Process(f"{MODULE}.honest", str(options.hosts), str(options.accounts), str(options.rate))
        stack.callback(honest.close)
        command = [sys.executable, "-m", PROFILED, options.profile.resolve(), "serve"] if options.profile else SERVE
        settings = dict(pair.split("=", 1) for pair in options.set)
        settings = {"RELAY_PLC_HOST": honest.first["plc"], "LOG_LEVEL": "error", **settings}
        relay = RelayProcess(folder, settings, command)
        relay.start()
        stack.callback(relay.close)
        relay.crawl(*honest.first["hosts"])
        for url in honest.first["hosts"]:
            relay.lift_limits(url.partition("//")[2])
        arrivals = Arrivals()
        gevent.spawn(Consumer(relay.firehose, arrivals).run)
        honest.tell('{"go": true}')
        until(lambda: len(arrivals.came) >= 2 * options.accounts, KNOWN_SECONDS)
        gevent.sleep(SETTLE_SECONDS)
        yield relay, honest, arrivals
