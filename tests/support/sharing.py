"""A pytest plugin for several pytest processes that share one run: each test is run by whichever comes to it first.

`tests.side_by_side` starts the processes. All collect the same tests in the same order; before a process runs a share
of them it claims it, by a file in the run's folder that only one can make.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from itertools import groupby
from pathlib import Path

import pytest

FOLDER = Path(os.environ["TESTS_SHARED_RUN"])
# What takes long comes first, so that no process is left alone with it at the end.
FIRST = ("tests/e2e", "tests/fuzz", "tests/process", "tests/integration", "tests/promises", "tests/differential")
# One share for all tests of a folder that have this fixture in common: it is costly, and is then made once.
COSTLY = "running_network"
# A share for each function where there is nothing in common; everywhere else it is a file.
SINGLE = ("tests/unit/",)


def is_costly(item: pytest.Item) -> bool:
    return COSTLY in getattr(item, "fixturenames", ())


def share_of(item: pytest.Item) -> str:
    """The tests that one process runs, one after the other."""
    if is_costly(item):
        return COSTLY
    return item.nodeid.partition("[" if item.nodeid.startswith(SINGLE) else "::")[0]


def rank(item: pytest.Item) -> tuple[int, bool]:
    """Sorts items by folder, and in a folder puts those of one share together."""
    folders = (number for number, folder in enumerate(FIRST) if item.nodeid.startswith(f"{folder}/"))
    return next(folders, len(FIRST)), not is_costly(item)


def claimed(share: str) -> bool:
    """Whether this process is the first to ask for a share."""
    try:
        (FOLDER / sha256(share.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def ours(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests that fall to this process, each claimed only when the one before it is about to run."""
    for share, tests in groupby(items, share_of):
        if claimed(share):
            yield from tests


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=rank)


class Teller:
    """Names each failure as it comes: the reports come at the end of a process, which may be minutes later."""

    def __init__(self, terminal: pytest.TerminalReporter) -> None:
        self._terminal = terminal

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._terminal.write(f"\nFAILED {report.nodeid} ({report.when})\n")


def pytest_sessionstart(session: pytest.Session) -> None:
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if isinstance(terminal, pytest.TerminalReporter):
        session.config.pluginmanager.register(Teller(terminal))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """As pytest's own, which runs all there is."""
    if session.testsfailed or session.config.option.collectonly:
        return None
    tests = ours(session.items)
    item = next(tests, None)
    while item is not None:
        following = next(tests, None)
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True
