"""One measured run: the fleet of hosts, the consumers, and what the relay between them used.

Used by `tests.bench.network`, for one relay, and by `tests.bench.peers`, for several under the same load; its two sides
by `tests.bench.storm`. Knows the relay by its URL and its process only; whoever calls has it subscribed to the fleet's
hosts.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.bench.network.processes import Usage
from tests.bench.network.traffic import Shape, index_of, load_or_build
from tests.support.certificate import make_certificate
from tests.support.child import Child
from tests.support.relay_process import ROOT

CACHE = ROOT / ".cache" / "bench"
MODULE = "tests.bench.network"
_MOMENTS = {"first_at", "last_at", "unmeasured_at"}
WRONG = ("missing", "unexpected_or_repeated", "out_of_order", "seq_not_rising", "connections_lost")


class Fleet:
    """The hosts of some traffic, and of more traffic `beside` it if need be, in a process of their own, with a PLC
    directory that takes `plc_latency` seconds for an answer and fails in that share of them. `plc` and `hosts` are
    their http addresses; with `tls` the hosts' are https, and `certificate` is the file that a relay has to trust.
    """

    def __init__(
        self,
        shape: Shape,
        plc_port: int = 0,
        *,
        beside: Shape | None = None,
        tls: bool = False,
        plc_latency: float = 0.0,
        plc_failures: float = 0.0,
    ) -> None:
        self.shape = shape
        self.traffic = [load_or_build(one, CACHE) for one in (shape, beside) if one]
        index = index_of(self.traffic[0])
        self.first = sum(len(host.accounts) for host in index)
        self.measured = sum(len(host.events) for host in index) - self.first
        self.beside = sum(len(host.events) for one in self.traffic[1:] for host in index_of(one))
        options = [f"--plc-port={plc_port}", f"--plc-latency={plc_latency}", f"--plc-failures={plc_failures}"]
        self.certificate: Path | None = None
        with ExitStack() as opened:
            if tls:
                folder = opened.enter_context(tempfile.TemporaryDirectory())
                self.certificate = make_certificate(Path(folder), "localhost")
                options.append(f"--certificate={self.certificate}")
            self._child = Child([sys.executable, "-m", f"{MODULE}.fleet", *options, *self.traffic], cwd=ROOT)
            opened.callback(self._child.close)
            self._child.wait_for('"plc"', 300)
            self._opened = opened.pop_all()
        self.plc: str = self._child.messages[0]["plc"]
        self.hosts: list[str] = self._child.messages[0]["hosts"]

    def __enter__(self) -> Fleet:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._opened.close()

    @property
    def trust(self) -> dict[str, str]:
        """Of a relay's environment: what makes it trust the hosts' certificate. Empty without TLS."""
        return {"SSL_CERT_FILE": str(self.certificate)} if self.certificate else {}

    def send_first(self) -> None:
        """Let every host send each account's first event."""
        self._child.send({"send": "first", "traffic": 0})

    def send_all(self, start: float, seconds: float) -> None:
        """Let every host send the rest, spread over `seconds` from `start` on, or at once when `seconds` is 0."""
        self._child.send({"send": "all", "traffic": 0, "start": start, "seconds": seconds})

    def send_beside(self) -> None:
        """Let the hosts of the traffic beside send all they have at once."""
        self._child.send({"send": "all", "traffic": 1, "start": 0.0, "seconds": 0.0})

    def plc_requests(self) -> int:
        """How often the directory was asked up to now."""
        return self._counts()["plc_requests"]

    def wait_subscribed(self) -> None:
        """Wait until a relay is subscribed to every host. Raises AssertionError when that takes too long."""
        deadline = time.monotonic() + 60 + len(self.hosts) / 20
        while (subscribed := self._counts()["subscribed"]) < len(self.hosts):
            assert time.monotonic() < deadline, f"subscribed to {subscribed} of {len(self.hosts)} hosts only"
            time.sleep(0.05)

    def _counts(self) -> dict[str, int]:
        had = len(self._child.messages)
        self._child.send({"count": True})
        self._child.wait_until(lambda: len(self._child.messages) > had)
        return dict(self._child.messages[-1])


class Audience:
    """`count` consumers in a process of their own, the first of which checks every event against the traffic. `early`
    ones are there before the relay is, and connect as soon as it takes them.
    """

    def __init__(self, traffic: Sequence[Path], url: str, count: int, *, early: bool = False) -> None:
        self.count = count
        self._child = _started("consumers", url, count, *traffic, until='"loaded"' if early else '"connected"')

    def __enter__(self) -> Audience:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.close()

    def expect(self, start: float, seconds: float) -> None:
        """Count from now on; latency counts from when an event is due in a run of `seconds` from `start` on.

        All that came before must have come to every consumer.
        """
        self._child.send({"start": start, "seconds": seconds})
        self._child.wait_for('"counting"')

    def wait(self, field: str, count: int, patience: float) -> bool:
        """Wait until `field` of the progress is `count`; False when nothing has come for `patience` seconds."""
        return _risen(self._child, field, count, patience)

    def seen(self) -> int:
        """How many events the first consumer has seen up to now."""
        return int(_latest(self._child, "seen"))

    def report(self, **details: bool) -> dict[str, Any]:
        """What came up to now; `each=True` for every latency."""
        had = len(self._reports())
        self._child.send({"report": True, **details})
        self._child.wait_until(lambda: len(self._reports()) > had, 60)
        return dict(self._reports()[-1])

    def _reports(self) -> list[dict[str, Any]]:
        return [message["report"] for message in self._child.messages if "report" in message]


class Counting:
    """`count` consumers in a process of their own that only count bytes."""

    def __init__(self, url: str, count: int) -> None:
        self.count = count
        self._child = _started("counting", url, count)

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.close()

    def wait(self, wire_bytes: int, patience: float) -> bool:
        """Wait until all have `wire_bytes`; False when nothing has come for `patience` seconds."""
        return _risen(self._child, "slowest_bytes", wire_bytes, patience)

    def latest(self, field: str) -> float:
        return _latest(self._child, field)


def _started(module: str, *arguments: object, until: str = '"connected"') -> Child:
    child = Child([sys.executable, "-m", f"{MODULE}.{module}", *(str(one) for one in arguments)], cwd=ROOT)
    try:
        child.wait_for(until, 120)
    except BaseException:
        child.close()
        raise
    return child


def _risen(child: Child, field: str, to: float, patience: float) -> bool:
    seen = 0.0
    while seen < to:
        try:
            child.wait_until(lambda: _latest(child, field) > seen, patience)  # noqa: B023
        except AssertionError:
            return False
        seen = _latest(child, field)
    return True


def _latest(child: Child, field: str) -> float:
    return float(next((message[field] for message in reversed(child.messages) if field in message), 0))


def measure(
    fleet: Fleet,
    url: str,
    usage: Callable[[], Usage],
    database_usage: Callable[[], Usage] | None = None,
    *,
    consumers: int,
    counting: int = 0,
    rate: float = 0,
) -> dict[str, Any]:
    """Send the fleet's traffic through the relay at `url`: each account's first event, then the measured run.

    `consumers` look at what comes, `counting` ones beside them count its bytes; `rate` is events a second, 0 as fast as
    the relay takes them. Raises AssertionError when first events do not come.
    """
    with ExitStack() as stack:
        audience = stack.enter_context(Audience(fleet.traffic, url, consumers))
        crowd = stack.enter_context(Counting(url, counting)) if counting else None
        fleet.send_first()
        assert audience.wait("slowest", fleet.first, 60), "first events are missing"
        assert crowd is None or crowd.wait(int(audience.report()["wire_bytes"]), 60), "first events are missing"
        start, seconds = time.monotonic() + 0.5, fleet.measured / rate if rate else 0.0
        audience.expect(start, seconds)
        time.sleep(max(0.0, start - time.monotonic() - (0.1 if seconds else 0.0)))
        before, database_before = usage(), database_usage and database_usage()
        fleet.send_all(start, seconds)
        complete = audience.wait("slowest", fleet.measured, 30)
        if crowd:
            complete &= crowd.wait(int(audience.report()["wire_bytes"]), 30)
        used = usage() - before
        database_used = database_usage() - database_before if database_usage and database_before else None
        found = audience.report()
        events = found["deliveries"] / consumers
        if crowd:
            found["deliveries"] += int(crowd.count * events) if complete else 0
            found["connections_lost"] += int(crowd.latest("lost"))
            found["last_at"] = max(found["last_at"], crowd.latest("last_at"))
        return {
            **fleet.shape._asdict(),
            "consumers": consumers + counting,
            "rate": rate or "as fast as it goes",
            "complete": complete,
            **_figures(found, events, start, used),
            **(_beside_database(used, database_used, events) if database_used else {}),
        }


def _beside_database(used: Usage, database_used: Usage, events: float) -> dict[str, Any]:
    together = used.cpu_seconds + database_used.cpu_seconds
    return {
        "database_cpu_seconds_per_1000_events": _per_1000(database_used, events),
        "events_per_cpu_second_with_database": round(events / together) if together else None,
    }


def _per_1000(used: Usage, events: float) -> float:
    return round(used.cpu_seconds / events * 1000, 4)


def _figures(found: dict[str, Any], events: float, start: float, used: Usage) -> dict[str, Any]:
    elapsed = found["last_at"] - start
    return {
        **{key: value for key, value in found.items() if key not in _MOMENTS | {"latency_s"}},
        "seconds": round(elapsed, 2),
        "events_per_second": round(events / elapsed),
        "deliveries_per_second": round(found["deliveries"] / elapsed),
        "deliveries_per_cpu_second": round(found["deliveries"] / used.cpu_seconds) if used.cpu_seconds else None,
        "cpu_seconds_per_1000_events": _per_1000(used, events),
        "events_per_cpu_second": round(events / used.cpu_seconds) if used.cpu_seconds else None,
        "cpu_share_of_a_core": round(used.cpu_seconds / elapsed, 2),
        "rss_mib": round(used.rss_bytes / 2**20, 1),
        "rss_peak_mib": round(used.peak_bytes / 2**20, 1),
        **{f"latency_{name}_ms": value and round(value * 1000, 1) for name, value in found["latency_s"].items()},
    }
