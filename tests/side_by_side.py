"""Runs the tests in several pytest processes side by side; what is costly is started once.

    python -m tests.side_by_side [--jobs N] [--per-core N] [--postgres] PYTEST-ARGUMENT…

All of them share one list of tests (`tests/support/sharing.py`). There is one for each core, or more with `--per-core`:
most tests with processes and timeouts wait most of their time. With `--postgres` one server is there for all. Output is
shown as it comes, failures and summaries when a process is done, and at the end once more what failed, a line each.
Used by `make check` and `make test`.
"""

from __future__ import annotations

import argparse
import compileall
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, closing
from pathlib import Path

from tests.support.postgres import BINARIES, Cluster

ROOT = Path(__file__).parents[1]
MAX_JOBS = 8
SUMMARY = re.compile(r"\d+ (passed|failed|skipped|error|errors).* in \d")
OPTIONS = ("-p", "tests.support.sharing", "-p", "no:cacheprovider")


class Process:
    """One running pytest. Its progress goes to our output line by line, the rest in one piece at its end."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *OPTIONS, *arguments],
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._report: list[str] = []
        self._summary = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            # What is still running may say something after it.
            if SUMMARY.search(line):
                self._summary = line
            # Reports begin with a ruler.
            if self._report or line.startswith("==="):
                self._report.append(line)
            else:
                print(line, end="", flush=True)
        print("".join(self._report), end="", flush=True)

    def wait(self) -> int:
        """The exit code. Each test has a limit of its own, and so has their number."""
        self._reader.join()
        return self._process.wait()

    def failures(self) -> list[str]:
        """What failed, and why, as pytest's summary has it."""
        return [line for line in self._report if line.startswith(("FAILED ", "ERROR "))]

    def counts(self) -> dict[str, int]:
        """How many passed, failed, …: what pytest says in its summary."""
        return {word: int(number) for number, word in re.findall(r"(\d+) ([a-z]+)", self._summary.partition(" in ")[0])}


def run(arguments: list[str], jobs: int, *, postgres: bool) -> int:
    """Run the tests and say how it went; 0 when all passed, else the first exit code that is not 0."""
    start = time.monotonic()
    # Hundreds of processes start in a run, each a third faster so. The environment may keep them from doing it
    # themselves.
    compileall.compile_dir(ROOT / "relay", quiet=1)
    with ExitStack() as stack:
        environment = {"TESTS_SHARED_RUN": stack.enter_context(tempfile.TemporaryDirectory(prefix="relay-tests-"))}
        if postgres and BINARIES:
            environment["TESTS_POSTGRES_PORT"] = str(stack.enter_context(closing(Cluster(jobs))).port)
        processes = [Process(arguments, environment) for _ in range(jobs)]
        codes = [process.wait() for process in processes]
    total: Counter[str] = Counter()
    for process in processes:
        total.update(process.counts())
    print("".join(line for process in processes for line in process.failures()), end="")
    counts = ", ".join(f"{number} {word}" for word, number in total.items())
    print(f"{counts} in {time.monotonic() - start:.0f} s, {jobs} processes side by side")
    return next((code for code in codes if code), 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, help=f"by default one for each core, {MAX_JOBS} at the most")
    parser.add_argument("--per-core", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="one PostgreSQL server for the whole run")
    options, arguments = parser.parse_known_args()
    jobs = options.jobs or min(options.per_core * len(os.sched_getaffinity(0)), MAX_JOBS)
    return run(arguments, jobs, postgres=options.postgres)


if __name__ == "__main__":
    sys.exit(main())
