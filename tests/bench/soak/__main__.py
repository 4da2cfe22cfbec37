"""Hours of a relay that is never at rest, and what grows meanwhile: `python -m tests.bench.soak --help`.

1,000 TLS hosts send 300 events a second; accounts come, change their keys and handles, and are taken down; hosts are
cut off, go away for a while, or are new; consumers come and go, some of them from far behind. Once a minute it prints
what the relay consists of; at the end how fast memory rose in the last two thirds, what else grew, and what was lost.
Ends by itself after --hours. Exits with 1 when an event was lost, repeated or out of order; never for its memory.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import signal
import sys
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

from tests.bench.network.measure import CACHE
from tests.bench.soak import readings
from tests.bench.soak.checking import compare, differences
from tests.bench.soak.population import TOO_LATE
from tests.bench.soak.readings import Reading
from tests.support.child import Child
from tests.support.relay_process import ROOT, RelayProcess

MODULE = "tests.bench.soak"
GOAL_MIB_AN_HOUR = 1.0
WRONG = ("lost", "repeated", "out of order", "seq not rising")
SAMPLE_SECONDS = 5.0
CALM_SECONDS = 90.0  # before the end: hosts that were away are dialled again
DRAIN_SECONDS = 120.0
TAKEDOWN_SECONDS = 30.0
TRACED_LINES = 15
# Small enough to be full in the first third: memory that is still being filled is not a leak.
SETTINGS = {
    "RELAY_DEFAULT_ACCOUNT_LIMIT": "1000000",
    "RELAY_NEW_HOSTS_PER_DAY_LIMIT": "100000",
    "RELAY_PERSIST_MAX_BYTES": "256M",
    "LOG_LEVEL": "warn",
}


class Soak:
    """The relay with both sides. `close` ends all of them."""

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self.options = options
        self.folder = folder
        self.counts = folder / "counts.json"
        command = [sys.executable, "-m", f"{MODULE}.fleet", str(folder), str(options.hosts), str(options.accounts)]
        self.fleet = Child(command, cwd=ROOT)
        self.relay: RelayProcess | None = None
        self.audience: Child | None = None
        self.samples: list[tuple[float, float]] = []
        self.readings: list[Reading] = []
        self._taken_down: list[tuple[float, str]] = []
        self._crawled = 0

    def start(self) -> RelayProcess:
        """Start the relay, wait until it has all hosts, and begin."""
        self.fleet.wait_for('"plc"', 300)
        self.taken: list[str] = self.fleet.messages[0]["taken"]
        settings = SETTINGS | {
            "SSL_CERT_FILE": str(self.folder / "certificate.pem"),
            "RELAY_PLC_HOST": self.fleet.messages[0]["plc"],
            "RELAY_IDENT_CACHE_SIZE": str(self.options.accounts // 2),
        }
        settings |= {"RELAY_DEBUG_MEMORY": "true"} if self.options.trace else {}
        settings |= dict(pair.split("=", 1) for pair in self.options.set)
        # Only now: thousands of hosts may listen on any port.
        self.relay = relay = RelayProcess(
            self.folder, settings, [sys.executable, "-m", f"{MODULE}.counted", self.counts, "serve"]
        )
        relay.start()
        relay.wait_until(lambda: relay.metric("relay_hosts_connected") >= self.options.hosts, 180)
        (self.folder / "taken.json").write_text(json.dumps(self.taken))
        self.audience = Child(
            [sys.executable, "-m", f"{MODULE}.audience", relay.firehose, self.folder / "taken.json"], cwd=ROOT
        )
        self.audience.wait_for('"connected"', 60)
        self.fleet.send({"rate": self.options.rate, "new": self.options.new})
        return relay

    def run(self, relay: RelayProcess, seconds: float) -> None:
        """Look at the relay for so long."""
        assert relay.child
        began, calm = time.monotonic(), False
        reading_due = began + 60.0
        for number in count():
            now = time.monotonic()
            if now >= began + seconds or not relay.child.running:
                break
            if not calm and now >= began + seconds - min(CALM_SECONDS, seconds / 4):
                calm = True
                self.fleet.send({"calm": True})
            # On a busy machine an answer may take too long: it is asked for again at the next look.
            with suppress(OSError):
                self._take_down(relay, self.taken[number % len(self.taken)], again=not calm)
                self._crawl(relay)
            self.samples.append((now / 3600, readings.resident_mib(relay.child.process.pid)))
            if now >= reading_due:
                reading_due += 60.0
                with suppress(OSError):
                    self._read(relay, (now - began) / 60)
            time.sleep(max(0.0, now + SAMPLE_SECONDS - time.monotonic()))
        until = time.monotonic() + DRAIN_SECONDS
        while self._taken_down and relay.child.running and time.monotonic() < until:
            with suppress(OSError):
                self._restore(relay, math.inf)

    def _take_down(self, relay: RelayProcess, did: str, *, again: bool) -> None:
        """Another account each time that the relay knows it, and back after a while."""
        now = time.monotonic()
        self._restore(relay, now)
        known = again and relay.xrpc("getRepoStatus", f"did={did}").status == 200
        if known and did not in (taken for _, taken in self._taken_down):
            relay.admin("repo/takeDown", {"did": did})
            self._taken_down.append((now + TAKEDOWN_SECONDS, did))

    def _restore(self, relay: RelayProcess, until: float) -> None:
        """End the takedowns that are to last until then at most."""
        while self._taken_down and self._taken_down[0][0] <= until:
            relay.admin("repo/reverseTakedown", {"did": self._taken_down[0][1]})
            del self._taken_down[0]

    def _crawl(self, relay: RelayProcess) -> None:
        """Have new hosts crawled; one that does not answer in time, as on a busy machine, again at the next look."""
        for message in self.fleet.messages[self._crawled :]:
            host = message.get("crawl")
            if host and relay.ask_admin("pds/requestCrawl", {"hostname": host}).status != 200:
                return
            self._crawled += 1

    def _read(self, relay: RelayProcess, minutes: float) -> None:
        self.readings.append(readings.take(relay, self.counts, self.folder / "relay.sqlite"))
        print(f"{minutes:5.1f} min  {readings.line(self.readings[-1])}", flush=True)
        if self.options.trace and len(self.readings) % self.options.trace == 0:
            for entry in relay.admin("debug/memory")["grown_since_last_report"][:TRACED_LINES]:
                print(f"    {entry['bytes']:+10,} bytes, {entry['count']:+7,} blocks  {entry['line']}", flush=True)

    def verdict(self, relay: RelayProcess) -> dict[str, Any]:
        """End the events, wait until all have come, and say what was wrong."""
        assert self.audience
        sent_file, seen_file = self.folder / "sent.json", self.folder / "seen.json"
        self.fleet.send({"stop": str(sent_file)})
        self.fleet.wait_for('"sent"', 60)
        sent = {did: tuple(counts) for did, counts in json.loads(sent_file.read_text()).items()}
        wanted, until = sum(map(sum, sent.values())), time.monotonic() + DRAIN_SECONDS
        while self._seen() < wanted and time.monotonic() < until:
            time.sleep(1.0)
        self.audience.send({"write": str(seen_file)})
        self.audience.wait_for('"written"', 60)
        found = json.loads(seen_file.read_text())
        for words in differences(sent, found):
            print(f"wrong: {words}")
        third = len(self.samples) // 3
        dropped = ["not told"]
        with suppress(OSError):
            dropped = relay.samples("relay_events_dropped_total")
        return {
            "events": wanted,
            **compare(sent, found),
            "seq not rising": found["not_rising"],
            "MiB an hour": round(readings.slope(self.samples[third:]), 2),
            "first third's MiB an hour": round(readings.slope(self.samples[:third]), 2),
            "MiB at the end": round(self.samples[-1][1], 1),
            "relay": "running" if relay.child and relay.child.running else "ended",
            "checking consumer": found["ended"] or "connected",
            "other consumers cut off": "; ".join(found["others_ended"]) or 0,
            "other events": found["others"],
            "hosts that had no longer what the relay asked for": self._too_late() or 0,
            "dropped": "; ".join(dropped),
        }

    def _too_late(self) -> str:
        """The hosts whose events are lacking because neither side read for minutes: the machine was too busy."""
        return "; ".join(sorted({line.split(TOO_LATE)[0].split()[-1] for line in self.fleet.lines if TOO_LATE in line}))

    def _seen(self) -> int:
        assert self.audience
        had = len(self.audience.messages)
        self.audience.send({"tell": True})
        self.audience.wait_until(lambda: len(self.audience.messages) > had)  # type: ignore[union-attr]
        return int(self.audience.messages[-1]["seen"])

    def close(self) -> None:
        for child in (self.audience, self.relay, self.fleet):
            if child is not None:
                child.close()


def tell(soak: Soak, verdict: dict[str, Any]) -> bool:
    """Print what grew and the verdict. False when events were not all there, once and in order."""
    late = soak.readings[len(soak.readings) // 3 :]
    for kind, at_least in (("MiB", 0.1), ("count", 1.0), ("cache", 1.0), ("objects", 50.0), ("rows", 1.0)):
        grown = readings.grown(late, kind, at_least) if len(late) > 1 else []
        print(f"grew in the last two thirds, {kind}: {'; '.join(grown[:12]) or 'nothing'}")
    assert soak.relay and soak.relay.child
    if soak.relay.child.running:
        print(f"garbage: {readings.garbage(soak.relay.child.process.pid, soak.counts)}")
    for name, value in verdict.items():
        print(f"{name:28} {value}")
    right = verdict["relay"] == "running" and not any(verdict[name] for name in WRONG)
    flat = verdict["MiB an hour"] < GOAL_MIB_AN_HOUR
    print(
        f"verdict: {'flat' if flat else 'not flat'}, {verdict['MiB an hour']:+.2f} MiB an hour "
        f"(goal: < {GOAL_MIB_AN_HOUR:g}); "
        f"{verdict['lost']} events lost, {verdict['repeated']} repeated, {verdict['out of order']} out of order"
    )
    return right


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("--hours", type=float, default=3.0, help="0.33 for the short form of 20 minutes")
    parser.add_argument("--hosts", type=int, default=1_000)
    parser.add_argument("--accounts", type=int, default=20_000, help="so many stay active; half of them are cached")
    parser.add_argument("--rate", type=float, default=300, help="commits a second")
    parser.add_argument("--new", type=float, default=1.0, help="new accounts, and changed identities, a second")
    parser.add_argument(
        "--trace", type=int, default=0, metavar="N", help="print the lines that grew every N minutes; slow"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the relay")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    # Ended from outside, it ends the relay as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=CACHE))
    soak = Soak(options, folder)
    try:
        relay = soak.start()
        soak.run(relay, options.hours * 3600)
        return 0 if tell(soak, soak.verdict(relay)) else 1
    finally:
        soak.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())
