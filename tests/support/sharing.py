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
# One share for all of a folder whose tests have a costly fixture in common, which is then made once.
WHOLE = ("tests/e2e/",)
# A share for each function where there is nothing in common; everywhere else it is a file.
SINGLE = ("tests/unit/",)


def share_of(nodeid: str) -> str:
    """The tests that one process runs, one after the other."""
    for folder in WHOLE:
        if nodeid.startswith(folder):
            return folder
    return nodeid.partition("[" if nodeid.startswith(SINGLE) else "::")[0]


def rank(nodeid: str) -> int:
    return next((number for number, folder in enumerate(FIRST) if nodeid.startswith(f"{folder}/")), len(FIRST))


def claimed(share: str) -> bool:
    """Whether this process is the first to ask for a share."""
    try:
        (FOLDER / sha256(share.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def ours(items: list[pytest.Item]) -> Iterator[pytest.Item]:
    """The tests that fall to this process, each claimed only when the one before it is about to run."""
    for share, tests in groupby(items, lambda item: share_of(item.nodeid)):
        if claimed(share):
            yield from tests


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: rank(item.nodeid))


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
