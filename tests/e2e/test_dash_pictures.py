"""Pictures of every page, at a desk and on a phone, light and dark, on a relay that looks like a week in production.

Kept in `tests/e2e/pictures/` (or DASH_PICTURES), to be looked at by people; the README's picture is one of them. What a
picture cannot show is tested here as well: pages keep inside their window, and the browser has nothing to complain of.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from selenium.webdriver.common.keys import Keys

from relay.hosts.lifecycle import Status
from tests.e2e.browser import CHROMIUM, DRIVER, Browser, StartBrowser, Window, background
from tests.support.busy_relay import HOSTS, Busy, busy_relay
from tests.support.web import PASSWORD

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed; `make test-setup` does it"),
    pytest.mark.timeout(600),
]
FOLDER = Path(os.environ.get("DASH_PICTURES", Path(__file__).parent / "pictures"))
DESK, PHONE = Window("desk", 1280, 800, False), Window("phone", 390, 844, True)


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Busy]:
    with busy_relay(tmp_path) as relay:
        yield relay


def log_in(browser: Browser, busy: Busy) -> None:
    browser.open(f"{busy.web.url}/dash/")
    browser.fill("Admin password", PASSWORD)
    browser.press("Log in")
    browser.wait(lambda: browser.all("nav[aria-label=Pages]"))


# The button says so for two seconds only.
NOTE_COPIES = """
const button = document.querySelector('.command .copy');
window.said = [];
new MutationObserver(() => said.push(button.textContent)).observe(button, {childList: true});
"""
PUBLIC = {
    "front": "/",
    "host-public": "/host/pds6.example.com",
    "account-public": "/account/{account}",
    "login": "/dash/",
}
PAGES = {
    "overview": "/dash/",
    "overview-24h": "/dash/?range=24h",
    "overview-7d": "/dash/?range=7d",
    "hosts": "/dash/hosts?sort=accounts&order=desc",
    "host": "/dash/hosts/pds6.example.com",
    "crawling": "/dash/crawling",
    "account": "/dash/accounts?did={account}",
    "consumers": "/dash/consumers",
    "block": "/dash/confirm/block?host=pds1.example.com",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [DESK, PHONE], ids=lambda window: window.name)
def test_pictures(busy: Busy, start_browser: StartBrowser, window: Window, scheme: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    browser = start_browser(window)
    browser.emulate_scheme(scheme)
    # The last one leads to the login.
    for name, path in PUBLIC.items():
        browser.open(busy.web.url + path.format(account=busy.account))
        browser.picture(FOLDER / f"{name}-{window.name}-{scheme}.png")
        assert (background(browser.look(name)) > 200) is (scheme == "light"), name
    log_in(browser, busy)
    for name, path in PAGES.items():
        browser.open(busy.web.url + path.format(account=busy.account))
        if name == "account":
            browser.sees("This relay is behind", "#why")
        if name == "overview-7d":
            points_at_a_chart(browser, "#chart-events", "received")
        browser.picture(FOLDER / f"{name}-{window.name}-{scheme}.png")
        assert (background(browser.look(name)) > 200) is (scheme == "light"), name
        if name == "overview-7d" and window is DESK and scheme == "light":
            for_the_readme(FOLDER / "overview-7d-desk-light.png")
    assert browser.complaints() == []


def for_the_readme(picture: Path) -> None:
    """The top of a picture with few colours, which is to be copied to docs/dash.png."""
    with Image.open(picture) as whole:
        top = whole.convert("RGB").crop((0, 0, DESK.width, 810))
        top.quantize(64).save(FOLDER / "dash.png", optimize=True)


def points_at_a_chart(browser: Browser, chart: str, words: str) -> None:
    """Leave the pointer where a value is shown."""

    def shown() -> bool:
        # A chart that the page replaces just now takes what is shown with it.
        browser.point_at(f"{chart} .lines")
        said = browser.find("#tip").text
        return "UTC" in said and words in said

    browser.wait(shown)


def test_a_chart_says_its_values(busy: Busy, start_browser: StartBrowser) -> None:
    browser = start_browser(DESK)
    log_in(browser, busy)
    browser.press("24 hours")
    assert browser.text(".ranges [aria-current]") == "24 hours"
    # From now on it stays as it is.
    browser.focus_on("#chart-memory .plot")
    values = browser.attribute("#chart-memory path[data-values]", "data-values").split("|")
    browser.press_key(Keys.HOME)
    browser.sees(f"main process {values[0]}", "#tip")
    browser.press_key(Keys.ARROW_RIGHT)
    browser.sees(f"main process {values[1]}", "#tip")
    browser.press_key(Keys.ESCAPE)
    browser.wait(lambda: not browser.find("#tip").is_displayed())
    assert not browser.all(".pointer")
    # With the pointer: another chart, and away from all.
    points_at_a_chart(browser, "#chart-hosts", "connected 2,")
    browser.point_at("h1")
    browser.wait(lambda: not browser.find("#tip").is_displayed())
    assert browser.complaints() == []


def test_light_and_dark_are_chosen_and_kept(busy: Busy, start_browser: StartBrowser) -> None:
    browser = start_browser(DESK)
    browser.emulate_scheme("light")
    browser.open(f"{busy.web.url}/")
    browser.press("Dark")
    assert background(browser.look("chosen-dark")) < 60
    log_in(browser, busy)
    assert background(browser.look("kept-dark")) < 60
    browser.emulate_scheme("dark")
    browser.press("Light")
    assert background(browser.look("chosen-light")) > 200


def test_hosts_are_found_among_thousands_and_a_block_is_undone(busy: Busy, start_browser: StartBrowser) -> None:
    browser = start_browser(DESK)
    log_in(browser, busy)
    browser.press("Hosts", "nav")
    browser.sees(f"all {HOSTS:,}")
    browser.fill("Search names", "oak|elm")
    browser.wait(lambda: all(name.startswith(("oak", "elm")) for name in browser.texts("#hosts tbody th a")))
    browser.press("Accounts", "thead")
    browser.wait(lambda: browser.find("th[aria-sort]").text.startswith("Accounts"))
    # No figure is broken over two lines.
    wrapped = """return [...document.querySelectorAll('td.number')].filter((one) =>
        one.firstChild && one.getClientRects()[0].height > 60).map((one) => one.textContent)"""
    assert browser.script(wrapped) == []
    name = browser.texts("#hosts tbody th a")[0]
    browser.open(f"{busy.web.url}/dash/hosts/{name}")
    browser.press("Block")
    browser.press("Block", "main form")
    browser.sees(f"{name} is blocked.")
    assert busy.web.hosts.report(name).host.status is Status.BANNED
    browser.press("Undo")
    browser.sees(f"{name} is unblocked.")
    assert busy.web.hosts.report(name).host.status is Status.ACTIVE


@pytest.mark.parametrize("script", [True, False])
def test_a_visitor_requests_a_crawl_and_asks_for_an_account(
    busy: Busy, start_browser: StartBrowser, script: bool
) -> None:
    browser = start_browser(PHONE, script=script)
    browser.open(f"{busy.web.url}/")
    browser.sees("The Example Relay Project")
    browser.fill("Hostname of your PDS", "localhost:1")
    browser.press("Request a crawl")
    browser.sees("Not taken: this relay accepts only public hosts.", "[role=alert]")
    browser.fill("Handle or DID", busy.account)
    browser.press("Look it up")
    browser.sees("This relay is behind")
    browser.look("account-public")


def test_commands_are_copied(busy: Busy, start_browser: StartBrowser) -> None:
    browser = start_browser(DESK)
    browser.open(f"{busy.web.url}/")
    command = browser.text(".command pre")
    assert command == f"goat firehose --relay-host {busy.web.url}"
    browser.script(NOTE_COPIES)
    browser.press("Copy", ".command")
    selected = "return getSelection().toString()"
    # A browser that gives no clipboard has the command selected, to be copied by hand.
    browser.wait(lambda: "Copied" in browser.script("return window.said") or browser.script(selected) == command)
