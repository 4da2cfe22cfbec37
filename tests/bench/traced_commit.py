"""Which functions one `#commit` passes between its host's socket and a consumer's.

    python -m tests.bench.traced_commit [--processes N] [--functions]

A relay runs as a process with a fake directory, a fake host, SQLite and one consumer, and knows the account. Its calls
are counted from when the host sends a commit until the consumer has it, and for a moment of the same length in which
nothing comes, in turns. A function is on the way if it is called more often with a commit, by the medians of all
rounds: what timers do anyway drops out, and so does the projector, which writes half a second later. Calls are those of
Python functions of `relay/`; a generator counts each time it goes on.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median

from gevent import monkey

monkey.patch_all()

import gevent  # noqa: E402

from tests.support.pds import FakePds  # noqa: E402
from tests.support.plc import FakePlc  # noqa: E402
from tests.support.relay_process import RelayProcess  # noqa: E402
from tests.support.through import ResumingConsumer, Writer  # noqa: E402
from tests.support.wait import until  # noqa: E402

ROUNDS = 15
# Until nothing is left to do of a commit, the projector's writing included.
QUIET_SECONDS = 1.2
PURE = "atproto"

Calls = Counter[tuple[str, str]]


class Traced:
    """The relay, its host and its consumer."""

    def __init__(self, folder: Path, plc: FakePlc, pds: FakePds, processes: int) -> None:
        self._out = folder / "calls"
        self._out.touch()
        command = (sys.executable, "-m", "tests.support.traced_relay", self._out)
        settings = {"RELAY_PLC_HOST": plc.url, "RELAY_VALIDATOR_PROCESSES": str(processes)}
        self.relay = RelayProcess(folder, settings, command)
        self.relay.start(120)
        self._writer = Writer(plc, pds)
        self._writer.repos = self._writer.repos[:1]
        self._consumer = ResumingConsumer(self.relay.firehose)
        self.relay.crawl(pds.url)
        for _ in range(3):
            self._pass_one()

    def round(self) -> tuple[Calls, Calls]:
        """What is called while a commit passes, and in as long a moment without one."""
        gevent.sleep(QUIET_SECONDS)
        began = time.monotonic()
        busy = self._calls(self._pass_one)
        seconds = time.monotonic() - began
        gevent.sleep(QUIET_SECONDS)
        return busy, self._calls(lambda: gevent.sleep(seconds))

    def _calls(self, work: Callable[[], None]) -> Calls:
        self._toggle()
        work()
        self._toggle()
        found = json.loads(self._out.read_text().splitlines()[-1])
        return Counter({(file, function): count for file, function, count in found})

    def _pass_one(self) -> None:
        self._writer.write(1)
        until(lambda: len(self._consumer.events) == self._writer.total, timeout=30)

    def _toggle(self) -> None:
        assert self.relay.child is not None
        lines = len(self._out.read_text().splitlines())
        self.relay.child.process.send_signal(signal.SIGUSR1)
        until(lambda: len(self._out.read_text().splitlines()) > lines, timeout=30)


def measure(processes: int) -> Calls:
    """The calls that a commit causes."""
    with tempfile.TemporaryDirectory() as folder, FakePlc() as plc, FakePds() as pds:
        traced = Traced(Path(folder), plc, pds, processes)
        try:
            pairs = [traced.round() for _ in range(ROUNDS)]
        finally:
            traced.relay.close()
    functions = {function for pair in pairs for calls in pair for function in calls}
    caused: Calls = Counter()
    for function in functions:
        more = median(with_it[function] for with_it, _ in pairs) - median(without[function] for _, without in pairs)
        if more > 0:
            caused[function] = round(more)
    return caused


def main() -> None:
    """Print the files, by room, and how many calls there are."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.traced_commit", description=__doc__.split("\n\n")[2])
    parser.add_argument("--processes", type=int, default=0, help="worker processes, whose own calls do not count")
    parser.add_argument("--functions", action="store_true", help="print each function as well")
    options = parser.parse_args()
    caused = measure(options.processes)
    files = sorted({file for file, _ in caused})
    rooms = Counter(file.split("/")[0] for file in files)
    for room in rooms:
        names = [file.split("/")[-1] for file in files if file.split("/")[0] == room]
        print(f"{room} {len(names)}: {', '.join(names)}")
        for (file, function), calls in sorted(caused.items()):
            if options.functions and file.split("/")[0] == room:
                print(f"    {calls:3} {file} {function}")
    pure = f"{rooms[PURE]} of them the pure core"
    print(f"{caused.total()} calls of {len(caused)} functions in {len(files)} files, {pure}")


if __name__ == "__main__":
    main()
