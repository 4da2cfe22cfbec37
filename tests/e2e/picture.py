"""Takes the README's picture of the dashboard: `python -m tests.e2e.picture docs/dash.png`.

A relay with six fake hosts, whose accounts write for half a minute so that every chart has something to show.
"""

from __future__ import annotations

# Imports come after the patch, in their own order.
# ruff: noqa: E402
from gevent import monkey

monkey.patch_all()

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import gevent

from tests.e2e.browser import Browser, Window
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import PASSWORD, RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, did_document
from tests.support.through import ACCOUNTS, Writer

HOSTS = 6
SECONDS = 30
WINDOW = Window("picture", 1280, 800, False)


def take(file: Path) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plc = stack.enter_context(FakePlc())
        hosts = [stack.enter_context(FakePds()) for _ in range(HOSTS)]
        relay = RelayProcess(folder / "relay", {"RELAY_PLC_HOST": plc.url})
        stack.callback(relay.close)
        relay.start()
        relay.crawl(*(host.url for host in hosts))
        writing = [gevent.spawn(write_on, OwnAccounts(plc, host, number)) for number, host in enumerate(hosts)]
        stack.callback(gevent.killall, writing)
        browser = Browser(folder, WINDOW)
        stack.callback(browser.close)
        browser.open(f"{relay.url}/dash/")
        browser.fill("Admin password", PASSWORD)
        browser.press("Log in")
        browser.sees("Live", "#live")
        gevent.sleep(SECONDS)
        # With a palette the file is a third of the size and looks the same.
        browser.look("dash").quantize(128).save(file, optimize=True)


class OwnAccounts(Writer):
    """A writer whose accounts no other host has."""

    def __init__(self, plc: FakePlc, pds: FakePds, host: int) -> None:
        self.host = host
        super().__init__(plc, pds)

    def sign_up(self) -> None:
        number = self.host * ACCOUNTS + len(self.repos) + 1
        repo = RepoBuilder(account_did(number), SigningKey.create(seed=number))
        self.plc.documents[repo.did] = did_document(repo.did, repo.key, self.pds.url)
        self.repos.append(repo)
        self.written[repo.did] = []


def write_on(writer: Writer) -> None:
    while True:
        writer.write(10)
        gevent.sleep(0.5)


if __name__ == "__main__":
    take(Path(sys.argv[1]))
