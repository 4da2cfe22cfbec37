"""The page that says why an account is missing, in a real browser on a real relay: each cause as its owner sees it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.e2e.browser import CHROMIUM, DESKTOP, DRIVER, PHONE, Browser, StartBrowser, Window
from tests.support.http import Answer
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RELAY, RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed; `make test-setup` does it"),
    pytest.mark.timeout(600),
]


class Stage:
    """A relay, and accounts on hosts of their own that it knows or does not."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self._stack = stack
        self._plc = stack.enter_context(FakePlc())
        self.relay = RelayProcess(folder / "relay", {"RELAY_PLC_HOST": self._plc.url})
        self.relay.start()
        stack.callback(self.relay.close)
        self._numbers = iter(range(1, 100))

    def account(self, pds: FakePds) -> RepoBuilder:
        """An account on a host, with a first commit that is sent."""
        number = next(self._numbers)
        key = SigningKey.create("k256", seed=number)
        repo = RepoBuilder(account_did(number), key)
        self._plc.documents[repo.did] = did_document(repo.did, key, pds.url)
        pds.publish(number, repo.commit(create("app.bsky.feed.post/a", {"text": "hello"})).frame(number))
        pds.repo_status[repo.did] = {"did": repo.did, "active": True, "rev": repo.rev}
        return repo

    def host(self) -> FakePds:
        """A host that the relay follows."""
        pds = self.unknown_host()
        before = len(self.relay.admin("subs/getUpstreamConns") or ())
        self.relay.admin("pds/requestCrawl", {"hostname": pds.url})
        self.relay.wait_connected(before + 1)
        return pds

    def unknown_host(self) -> FakePds:
        return self._stack.enter_context(FakePds())

    def wait_known(self, repo: RepoBuilder) -> None:
        self.relay.wait_until(lambda: self._status(repo).status == 200)

    def wait_in_step(self, repo: RepoBuilder) -> None:
        """An account is known a moment before its first commit is."""
        self.relay.wait_until(lambda: self._status(repo).json.get("rev") == repo.rev)

    def _status(self, repo: RepoBuilder) -> Answer:
        return self.relay.xrpc("getRepoStatus", f"did={repo.did}")


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with ExitStack() as stack:
        yield Stage(tmp_path, stack)


def sees(browser: Browser, stage: Stage, repo: RepoBuilder, cause: str, words: str) -> None:

    def said() -> bool:
        # Looked at again, as its owner does: on a busy machine a PDS may answer too late for the first time.
        browser.open(f"{stage.relay.url}/account/{repo.did}")
        return words in browser.text()

    browser.wait(said)
    browser.look(f"account-{cause}")


@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=lambda window: window.name)
def test_each_cause_is_said_in_a_sentence(stage: Stage, start_browser: StartBrowser, window: Window) -> None:
    browser = start_browser(window)
    pds, lost, blocked, full = (stage.host() for _ in range(4))
    fine, behind, inactive, taken = (stage.account(pds) for _ in range(4))
    of_lost, of_blocked, of_full = stage.account(lost), stage.account(blocked), stage.account(full)
    for repo in (fine, behind, inactive, taken, of_lost, of_blocked, of_full):
        stage.wait_in_step(repo)
    sees(browser, stage, fine, "in-step", "this relay has its newest commit")

    pds.repo_status[behind.did]["rev"] = "3zzzzzzzzzz2a"
    sees(browser, stage, behind, "behind", "This relay is behind")
    browser.sees("3zzzzzzzzzz2a")

    pds.repo_status[inactive.did] = {"did": inactive.did, "active": False, "status": "deactivated"}
    sees(browser, stage, inactive, "inactive-at-pds", "is not active at its PDS, which calls it deactivated")

    stage.relay.admin("repo/takeDown", {"did": taken.did})
    sees(browser, stage, taken, "not-served", "The account is not served by this relay.")

    stage.relay.admin(f"pds/block?host={blocked.hostname}", method="POST")
    sees(browser, stage, of_blocked, "host-blocked", "is blocked here")

    stage.relay.admin("pds/changeLimits", {"host": full.hostname, "repo_limit": 1})
    late = stage.account(full)
    stage.wait_known(late)
    sees(browser, stage, late, "account-limit", "was at its limit of 1 accounts")

    lost.refuse_upgrade = 503
    lost.hang_up()
    stage.relay.wait_until(lambda: lost.hostname not in (stage.relay.admin("subs/getUpstreamConns") or ()))
    sees(browser, stage, of_lost, "host-not-connected", "is not connected to the account's PDS")

    unknown = stage.unknown_host()
    nowhere = stage.account(unknown)
    sees(browser, stage, nowhere, "host-unknown", "This relay does not know the account's PDS")
    browser.press(f"Request a crawl of {unknown.hostname}")
    # Hosts on loopback are for admins: the relay says so, in words, on the same page.
    browser.sees("The relay does not accept localhost", "[role=status]")
    browser.look("account-crawl-refused")
    assert browser.complaints() == []


def test_the_command_says_the_same(stage: Stage) -> None:
    pds = stage.host()
    repo = stage.account(pds)
    stage.wait_in_step(repo)
    command = [str(RELAY), "accounts", "why", repo.did, "--url", stage.relay.url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr
    assert "this relay has its newest commit" in run.stdout
    assert f"rev here        {repo.rev}" in run.stdout
    assert pds.hostname in run.stdout
