"""The page for people in a real browser, on a real relay: what an operator does there, at a desk and on a phone."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys
from websockets.exceptions import ConnectionClosed

from tests.e2e.browser import CHROMIUM, DESKTOP, DRIVER, PHONE, Browser, StartBrowser, Window, background
from tests.e2e.network import POST, Account, Ledger, ReferenceNetwork
from tests.support.pds import FakePds, identity_frame
from tests.support.relay_process import PASSWORD, RelayProcess
from tests.support.websocket import connect

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed; `make test-setup` does it"),
    pytest.mark.timeout(600),
]
EVIL = "<img src=x onerror='window.pwned=1'>"


@pytest.fixture
def lone_relay(tmp_path: Path) -> Iterator[RelayProcess]:
    """A relay without a network."""
    relay = RelayProcess(tmp_path / "relay", {})
    relay.start()
    yield relay
    relay.close()


def log_in(browser: Browser, relay: RelayProcess, path: str = "/dash/") -> None:
    browser.open(relay.url + path)
    browser.fill("Admin password", PASSWORD)
    browser.press("Log in")
    browser.wait(lambda: browser.all("nav[aria-label=Pages]"))


@pytest.mark.parametrize("window", [DESKTOP, PHONE], ids=lambda window: window.name)
def test_a_day_of_an_operator(
    network: ReferenceNetwork, relay: RelayProcess, start_browser: StartBrowser, window: Window
) -> None:
    browser = start_browser(window)
    relay.crawl(*network.pds)
    account = Account(network.pds[0], Ledger())
    account.create()
    logs_in(browser, relay)
    with ExitStack() as stack:
        stack.enter_context(consumer_called(EVIL, relay))
        sees_rates_move(browser, account)
        crawled = [stack.enter_context(FakePds()) for _ in range(3)]
        crawls(browser, relay, crawled)
        searches_and_sorts(browser, relay, crawled)
        blocks(browser, relay, crawled[0])
        changes_limits(browser, relay, crawled[1])
        takes_down(browser, relay, account)
        sees_consumers(browser, relay)
    assert browser.complaints() == []
    browser.press("Log out")
    browser.open(f"{relay.url}/dash/hosts")
    browser.sees("Relay", "h1")


@contextmanager
def consumer_called(user_agent: str, relay: RelayProcess) -> Iterator[None]:
    """A consumer at the firehose that takes everything and answers pings: the relay keeps it however long it takes."""
    with connect(relay.firehose, user_agent_header=user_agent, open_timeout=60, max_size=None) as stream:

        def read() -> None:
            with suppress(ConnectionClosed):
                while True:
                    stream.recv()

        reader = threading.Thread(target=read)
        reader.start()
        yield
    reader.join()


def logs_in(browser: Browser, relay: RelayProcess) -> None:
    browser.open(f"{relay.url}/dash/")
    browser.look("login")
    browser.fill("Admin password", "a guess")
    browser.press("Log in")
    browser.sees("That is not the admin password.")
    assert ["401" in line for line in browser.wait(browser.complaints)] == [True]
    browser.fill("Admin password", PASSWORD)
    browser.press("Log in")
    browser.sees("Overview", "h1")
    assert browser.script("return document.cookie") == ""


def sees_rates_move(browser: Browser, account: Account) -> None:
    browser.script("window.untouched = true")
    before = browser.text("#window")
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            account.add(POST, text="hello")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        browser.wait(lambda: browser.text("#window") != before)
        browser.wait(lambda: browser.text("#rate-logged .figure") not in ("0 /s", "\N{EN DASH} /s"))
        browser.wait(lambda: browser.all("#rate-logged polyline"))
    finally:
        done.set()
        writer.join()
    assert browser.script("return window.untouched"), "the page was loaded again"
    browser.sees("Live", "#live")
    browser.sees("2 of 2", "#tiles")
    picture = browser.look("overview")
    assert background(picture) > 200


def crawls(browser: Browser, relay: RelayProcess, hosts: list[FakePds]) -> None:
    for number, host in enumerate(hosts, 1):
        for seq in range(1, 10 * number):
            host.publish(seq, identity_frame(seq))
        browser.press("Crawling")
        browser.fill("Hostname", host.url)
        browser.press("Request a crawl", "main")
        browser.sees(f"The relay connects to {host.url}")
    browser.look("crawling")
    relay.wait_connected(2 + len(hosts))
    for number, host in enumerate(hosts, 1):
        host.publish(100, identity_frame(100, "did:plc:" + "b" * 24))
        for seq in range(101, 101 + number):
            host.publish(seq, identity_frame(seq))


def searches_and_sorts(browser: Browser, relay: RelayProcess, hosts: list[FakePds]) -> None:
    names = "#hosts tbody th a"
    browser.press("Hosts", "nav")
    browser.wait(lambda: len(browser.all(names)) == 5)
    browser.look("hosts")
    browser.script("window.untouched = true")
    pattern = "|".join(f"{host.hostname}$" for host in hosts)
    browser.fill("Search names", pattern)
    browser.wait(lambda: sorted(browser.texts(names)) == sorted(host.hostname for host in hosts))
    browser.choose("Sort by", "Events")
    browser.choose("Order", "Falling")
    browser.wait(lambda: "sort=events&order=desc" in browser.driver.current_url)
    browser.wait(lambda: browser.texts(names) == [host.hostname for host in reversed(hosts)])
    assert browser.script("return window.untouched")
    if not browser.window.phone:
        browser.press("Events", "thead")
        browser.wait(lambda: browser.texts(names) == [host.hostname for host in hosts])
        assert browser.attribute("th[aria-sort]", "aria-sort") == "ascending"
    browser.look("hosts-found")
    browser.fill("Search names", "no such host")
    browser.sees("No host matches.")
    assert browser.text("#hosts .pager") == "0 hosts"


def blocks(browser: Browser, relay: RelayProcess, host: FakePds) -> None:
    browser.open(f"{relay.url}/dash/hosts?search={host.hostname}")
    browser.press("Block", "#hosts")
    browser.look("block")
    browser.sees(f"Block {host.hostname}?", "h1")
    browser.press("Cancel")
    browser.sees(host.hostname, "h1")
    browser.press("Block")
    browser.press("Block", "main form")
    browser.sees(f"{host.hostname} is blocked.")
    browser.look("host-blocked")
    relay.wait_until(lambda: is_blocked(relay, host))
    relay.wait_until(lambda: "request-crawl" in said(relay))
    relay.wait_until(lambda: f'block host="{host.hostname}" by=127.0.0.1' in said(relay))
    browser.press("Hosts", "nav")
    browser.press("banned 1")
    assert browser.texts("#hosts tbody th a") == [host.hostname]


def is_blocked(relay: RelayProcess, host: FakePds) -> bool:
    (found,) = [one for one in relay.admin("pds/list") if one["Host"] == host.hostname]
    return bool(found["Blocked"]) and not found["HasActiveConnection"]


def said(relay: RelayProcess) -> str:
    """All that the relay has logged."""
    return relay.log.read_text()


def changes_limits(browser: Browser, relay: RelayProcess, host: FakePds) -> None:
    browser.open(f"{relay.url}/dash/hosts/{host.hostname}")
    browser.fill("Accounts", "12345")
    browser.fill("Events per second", "77")
    browser.press("Change limits")
    browser.sees("are changed.")
    browser.look("host")
    (found,) = [one for one in relay.admin("pds/list") if one["Host"] == host.hostname]
    assert (found["RepoLimit"], found["PerSecondEventRate"]["Max"]) == (12345, 77)


def takes_down(browser: Browser, relay: RelayProcess, account: Account) -> None:
    browser.press("Accounts", "nav")
    browser.fill("DID or handle", account.did)
    browser.press("Look up")
    browser.sees("Here active")
    browser.sees("localhost:")
    browser.look("account")
    browser.press("Take down\N{HORIZONTAL ELLIPSIS}")
    browser.look("take-down")
    browser.press("Take down")
    browser.sees(f"{account.did} is taken down.")
    browser.sees("Here takendown")
    browser.sees(account.did, "#takedowns")
    browser.look("account-taken-down")
    assert relay.xrpc("getRepoStatus", f"did={account.did}").json["status"] == "takendown"
    browser.press("Restore\N{HORIZONTAL ELLIPSIS}")
    browser.press("Restore")
    browser.sees("Here active")
    assert relay.xrpc("getRepoStatus", f"did={account.did}").json["active"] is True


def sees_consumers(browser: Browser, relay: RelayProcess) -> None:
    browser.press("Consumers", "nav")
    browser.sees(EVIL, "#consumers")
    assert browser.script("return window.pwned === undefined && !document.querySelector('main img')")
    browser.look("consumers")


def test_a_relay_that_goes_away_and_comes_back(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser()
    log_in(browser, lone_relay)
    browser.sees("none yet", "#window")
    browser.sees("No event was dropped", "#drops")
    lone_relay.kill()
    browser.sees("No answer", "#live")
    browser.look("lost")
    lone_relay.start()
    # Sessions do not outlive the process: the script leads to the login, and the login back.
    browser.sees("Relay", "h1")
    browser.fill("Admin password", PASSWORD)
    browser.press("Log in")
    browser.sees("Overview", "h1")


def test_pause_stops_asking(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser()
    browser.count_timers()
    log_in(browser, lone_relay)
    asked = "return performance.getEntriesByType('resource').filter((one) => one.initiatorType === 'fetch').length"
    timers = "return pendingTimers.size"
    browser.wait(lambda: browser.script(asked) >= 1)
    browser.press("Pause")
    # An answer that is still waited for has a timer, too: without any, the page asks no more by itself.
    browser.wait(lambda: browser.script(timers) == 0)
    assert browser.text("#live") == "Paused"
    before = browser.script(asked)
    browser.press("Go on")
    browser.wait(lambda: browser.script(asked) > before)
    browser.sees("Live", "#live")
    browser.wait(lambda: browser.script(timers) > 0)


def test_a_pause_lasts_though_an_answer_comes_after_it(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser()
    browser.count_timers()
    log_in(browser, lone_relay)
    assert lone_relay.child
    lone_relay.child.process.send_signal(signal.SIGSTOP)
    try:
        for words in ("Pause", "Go on", "Pause"):
            browser.press(words)
    finally:
        lone_relay.child.process.send_signal(signal.SIGCONT)
    browser.wait(lambda: browser.script("return pendingTimers.size") == 0)
    assert browser.text("#live") == "Paused"
    browser.open(f"{lone_relay.url}/dash/hosts")
    browser.press("Pause")
    browser.fill("Search names", "oak")
    browser.wait(lambda: "search=oak" in browser.driver.current_url)
    browser.wait(lambda: not browser.all("#hosts[aria-busy]") and browser.script("return pendingTimers.size") == 0)
    assert browser.text("#live") == "Paused"


def test_it_is_dark_where_the_system_is(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser(PHONE)
    log_in(browser, lone_relay)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    for name, path in (("overview", "/dash/"), ("hosts", "/dash/hosts"), ("crawling", "/dash/crawling")):
        browser.open(lone_relay.url + path)
        assert background(browser.look(f"dark-{name}")) < 60


def test_everything_works_without_a_script(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser(script=False)
    with FakePds() as pds:
        lone_relay.crawl(pds.url)
        log_in(browser, lone_relay)
        browser.sees("Overview", "h1")
        assert not browser.find("#live").is_displayed()
        browser.press("Hosts", "nav")
        browser.fill("Search names", "localhost")
        browser.press("Show")
        assert browser.texts("#hosts tbody th a") == [pds.hostname]
        browser.press("Block", "#hosts")
        browser.press("Block", "main form")
        browser.sees(f"{pds.hostname} is blocked.")
        assert lone_relay.admin("pds/list")[0]["Blocked"]
        browser.press("Log out")
        browser.sees("Relay", "h1")


def test_it_can_be_used_by_keyboard(lone_relay: RelayProcess, start_browser: StartBrowser) -> None:
    browser = start_browser()
    log_in(browser, lone_relay)
    browser.open(f"{lone_relay.url}/dash/hosts")
    # In one look, since the page may change between two.
    focus = """const one = document.activeElement;
        return [one.innerText || one.id, one === document.body || one.matches(':focus-visible')]"""
    reached = []
    for _ in range(24):
        browser.press_key(Keys.TAB)
        name, visible = browser.script(focus)
        reached.append(" ".join(name.split()))
        assert visible, name
    assert reached[0] == "Skip to content"
    wanted = {"Overview", "Hosts", "Consumers", "Pause", "Log out", "search", "Show", "all 0"}
    assert wanted <= set(reached), reached
    unnamed = """return [...document.querySelectorAll('input:not([type=hidden]), select, button, a')].filter((one) =>
        !(one.labels && one.labels.length) && !one.textContent.trim()).map((one) => one.outerHTML)"""
    assert browser.script(unnamed) == []
