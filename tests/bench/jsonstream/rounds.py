"""One run of a contender: the network's events through a relay, to consumers of its firehose and of a JSON stream.

Run by `tests.bench.jsonstream`. Returns plain figures; what they mean is said in `table`.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tests.bench.jsonstream.contenders import Relay
from tests.bench.jsonstream.wanted import EVERYTHING, READERS, Traffic, Wanted, filters, traffic_of
from tests.bench.network.measure import WRONG, Audience, Fleet
from tests.bench.network.processes import Usage
from tests.bench.network.traffic import Shape
from tests.support.child import Child
from tests.support.relay_process import ROOT

Enter = Callable[[Path, str], Relay]  # a folder and the directory's address -> a contender that has not been started

SHAPE = Shape(hosts=20, accounts=200, events=15_000, seed=1)
FIREHOSE_CONSUMERS = 3
# One of each kind of filter.
CHECKED = (0, 3, READERS // 2, READERS - 1)
PATIENCE = 30


class Load(NamedTuple):
    """`rate` events a second, 0 as fast as they are taken."""

    name: str
    rate: float


class Readers:
    """Consumers of a JSON stream in a process of their own, and what they are to get."""

    def __init__(self, url: str, wanted: list[Wanted], traffic: Traffic, folder: Path) -> None:
        self._first, self._all = traffic.counts(wanted)
        self._checked = [number for number in CHECKED if number < len(wanted)]
        self._digests = [traffic.digest(wanted[number]) for number in self._checked]
        plan = folder / "plan"
        plan.write_text(json.dumps([{"query": one.query, "checked": n in CHECKED} for n, one in enumerate(wanted)]))
        self._child = Child([sys.executable, "-m", "tests.bench.jsonstream.readers", url, str(plan)], cwd=ROOT)
        try:
            self._child.wait_for('"connected"', 120)
        except BaseException:
            self._child.close()
            raise

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.close()

    def wait_first(self) -> bool:
        """Wait for the messages of all first events; False when nothing comes any more."""
        return self._wait(self._first)

    def wait_all(self) -> bool:
        """Wait for all messages; False when nothing comes any more."""
        return self._wait(self._all)

    def figures(self) -> dict[str, Any]:
        """Since the first events: deliveries, when the last came, and what was wrong."""
        messages = self._latest()["messages"]
        found = self._report()
        surplus = [had - want for had, want in zip(messages, self._all, strict=True)]
        return {
            "deliveries": sum(messages) - sum(self._first),
            "last_at": self._latest()["last_at"],
            "json_missing": sum(-one for one in surplus if one < 0),
            "json_unexpected_or_repeated": sum(one for one in surplus if one > 0),
            "json_out_of_order": found["out_of_order"],
            "json_different": sum(a != b for a, b in zip(found["digests"], self._digests, strict=True)),
            "json_connections_lost": self._latest()["lost"],
        }

    def _report(self) -> dict[str, Any]:
        def reports() -> list[dict[str, Any]]:
            return [message["report"] for message in self._child.messages if "report" in message]

        had = len(reports())
        self._child.send({"report": True})
        self._child.wait_until(lambda: len(reports()) > had, 60)
        return reports()[-1]

    def _latest(self) -> dict[str, Any]:
        told = (message for message in reversed(self._child.messages) if "messages" in message)
        return next(told, {"messages": [0] * len(self._all), "last_at": 0.0, "lost": 0})

    def _wait(self, counts: list[int]) -> bool:
        def through() -> bool:
            return all(had >= want for had, want in zip(self._latest()["messages"], counts, strict=True))

        while not through():
            before = sum(self._latest()["messages"])
            try:
                self._child.wait_until(lambda: sum(self._latest()["messages"]) > before, PATIENCE)  # noqa: B023
            except AssertionError:
                return False
        return True


def run(load: Load, enter: Enter, readers: int, folder: Path) -> dict[str, Any]:
    """Take a contender through a load with so many readers: one wants everything, two hundred what they want."""
    with Fleet(SHAPE) as fleet:
        contender = enter(folder, fleet.plc)
        try:
            contender.start(fleet)
            return _measured(load, contender, readers, fleet, folder)
        finally:
            contender.close()


def _measured(load: Load, contender: Relay, readers: int, fleet: Fleet, folder: Path) -> dict[str, Any]:
    traffic = traffic_of(fleet.traffic[0])
    wanted = [EVERYTHING] * readers if readers < READERS else filters(traffic.accounts)
    with (
        Audience(fleet.traffic, contender.relay.url, FIREHOSE_CONSUMERS) as audience,
        Readers(contender.url, wanted, traffic, folder) as json_readers,
    ):
        fleet.send_first()
        assert audience.wait("seen", fleet.first, 60), "first events are missing"
        assert json_readers.wait_first(), "messages of first events are missing"
        start, seconds = time.monotonic() + 0.5, fleet.measured / load.rate if load.rate else 0.0
        audience.expect(start, seconds)
        time.sleep(max(0.0, start - time.monotonic() - 0.1))
        before, relay_before = contender.usage(), contender.relay.usage()
        fleet.send_all(start, seconds)
        complete = audience.wait("slowest", fleet.measured, PATIENCE)
        complete &= json_readers.wait_all()
        used, relay_used = contender.usage() - before, contender.relay.usage() - relay_before
        found, said = audience.report(), json_readers.figures()
    elapsed = max(found["last_at"], said["last_at"]) - start
    return {
        "complete": complete,
        "events": fleet.measured,
        "seconds": round(elapsed, 2),
        "deliveries": said["deliveries"],
        "deliveries_per_second": round(said["deliveries"] / elapsed),
        **_of_process("", used, fleet.measured),
        **_of_process("relay_", relay_used, fleet.measured),
        **{f"firehose_{name}_ms": value and round(value * 1000, 1) for name, value in found["latency_s"].items()},
        **{name: found[name] for name in WRONG},
        **{name: value for name, value in said.items() if name.startswith("json_")},
    }


def _of_process(prefix: str, used: Usage, events: int) -> dict[str, float]:
    return {
        f"{prefix}cpu_seconds": round(used.cpu_seconds, 2),
        f"{prefix}cpu_us_per_event": round(used.cpu_seconds / events * 1e6, 1),
        f"{prefix}rss_mib": round(used.rss_bytes / 2**20, 1),
        f"{prefix}rss_peak_mib": round(used.peak_bytes / 2**20, 1),
    }


def faults(figures: Mapping[str, Any]) -> str:
    """What was wrong with a run, empty when nothing was."""
    wrong = [f"{name.replace('_', ' ')} {figures[name]}" for name in figures if _is_fault(name) and figures[name]]
    return ", ".join(wrong if wrong or figures.get("complete") else [str(figures.get("failed", "incomplete"))])


def _is_fault(name: str) -> bool:
    return name in WRONG or name.startswith("json_")
