"""Pictures of every page, at a desk and on a phone, light and dark, on a relay that looks like a week in production.

Kept in `tests/e2e/pictures/` (or DASH_PICTURES), to be looked at by people; the README's picture is one of them. What a
picture cannot show is tested here as well: pages keep inside their window, and the browser has nothing to complain of.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from selenium.webdriver.common.keys import Keys

from relay.hosts.lifecycle import Cause
from relay.kit import metrics
from relay.store.open import open_database
from relay.stream.firehose import Window
from tests.e2e.browser import CHROMIUM, DRIVER, Browser, StartBrowser
from tests.e2e.browser import Window as Screen
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.dash_week import plant_week
from tests.support.web import PASSWORD, Web

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="Chromium is not installed; `make test-setup` does it"),
    pytest.mark.timeout(600),
]
FOLDER = Path(os.environ.get("DASH_PICTURES", Path(__file__).parent / "pictures"))
DESK, PHONE = Screen("desk", 1280, 800, False), Screen("phone", 390, 844, True)
HOSTS = 3000
FIRST_SEQ = 18_402_113_077
AGENTS = ("Jetstream/1.4 (+https://github.com/bluesky-social)", "tap/0.3.1", "feedgen-python/2", "goat/0.2", "websocat")
NAMES = ("alder", "birch", "cedar", "elm", "hazel", "juniper", "larch", "maple", "oak", "rowan", "spruce", "willow")


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    """A relay that has 3,000 hosts, consumers and a week behind it; nothing of it is in the network."""
    db = open_database(f"sqlite://{tmp_path}/relay.sqlite", max_connections=4)
    add_hosts(db, 20)
    add_accounts(db, 1, [("active", "active"), ("takendown", "active"), ("takendown", "deactivated")])
    plant_week(tmp_path / "relay" / "persist")
    web = Web(
        db,
        tmp_path / "relay",
        64 << 20,
        operator_name="The Example Relay Project",
        operator_contact="relay@example.com",
        terms_url="https://example.com/terms",
        json_stream=True,
        initial_seq=FIRST_SEQ,
    )
    web.hosts.load()
    with ExitStack() as stack:
        _fill_hosts(web)
        _fill_history(web, monkeypatch)
        for number in range(23):
            consumer = stack.enter_context(
                web.services.consumers.connected(
                    f"203.0.113.{number + 7}",
                    AGENTS[number % len(AGENTS)],
                    datetime.now(UTC) - timedelta(hours=number * 5 + 1),
                )
            )
            consumer.position = web.firehose.last_seq - number * number % 90
            consumer.first_position = consumer.position - 2_000_000 * (number * 5 + 1)
        web.projector.start()
        web.sequencer.start()
        web.server.start()
        yield web
        web.server.stop(5)
        web.sequencer.stop(1)
        web.projector.stop(1)
        web.log.close()
        db.close()


def _fill_hosts(web: Web) -> None:
    rng, now = random.Random(3), time.time()
    first = next(iter(web.registry)).row
    for number in range(21, HOSTS + 1):
        web.registry.add(replace(first, id=number, hostname=f"{rng.choice(NAMES)}{number}.pds.example"))
    for number, host in enumerate(web.registry):
        host.account_count = round(10 ** rng.uniform(0, 4))
        host.row.account_limit = round(host.account_count * 1.4 + 100)
        host.events_seen = round(host.account_count * rng.uniform(1, 300))
        host.row.last_event_at = now - rng.uniform(0, 60)
        host.last_event_time = datetime.fromtimestamp(host.row.last_event_at - rng.uniform(0.1, 2), UTC).isoformat()
        if number % 23 == 5:
            host.row.last_event_at = now - rng.uniform(86_400, 900_000)
            host.note_error("connect-failed: no route to host", now - 4000)
            host.row.failures = 3 + number % 9
        else:
            host.connected_at = now - rng.uniform(0, 400_000)
        for _ in range(number % 7):
            host.drops.note(rng.choice(("signature-invalid", "rev-too-far-ahead", "chain-broken")), now)
    for number, host in enumerate(web.registry):
        if number % 211 == 6:
            host.connected_at = None
            host.note_error("blocked: by an admin", now)
            web.registry.change(host, Cause.BLOCKED)


def _fill_history(web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    rng, now = random.Random(5), time.monotonic()
    with monkeypatch.context() as patched:
        patched.setattr("relay.dash.history.time.monotonic", lambda: now)
        for _ in range(120):
            logged = round(5 * 610 * rng.uniform(0.9, 1.1))
            metrics.EVENTS_RECEIVED.labels("commit").inc(logged + 14)
            metrics.EVENTS_LOGGED.labels("commit").inc(logged)
            metrics.EVENTS_SENT.inc(logged * 23)
            for reason, count in (("signature-invalid", 9), ("rev-too-far-ahead", 3), ("chain-broken", 2)):
                metrics.EVENTS_DROPPED.labels(reason).inc(rng.randint(0, count))
            for stage, mean in (("queued", 0.003), ("judged", 0.0012), ("logged", 0.014)):
                for _ in range(10):
                    metrics.EVENT_STAGE_SECONDS.labels(stage).observe(rng.expovariate(1 / mean))
            metrics.LOG_SYNC_SECONDS.observe(rng.expovariate(1 / 0.006))
            metrics.HUB_LAG_SECONDS.observe(rng.expovariate(1 / 0.002))
            now += 5.0
            web.history.sample()
    metrics.LOG_BYTES.set(63.2e9)
    # All these were taken within a moment: the week is drawn as it was planted.
    web.history.past._load()
    web.publish(500)
    now = time.time()
    window = Window(FIRST_SEQ - 147_213_660, web.firehose.last_seq, now - 71.6 * 3600, now - 0.2, 72)
    monkeypatch.setattr(type(web.firehose), "window", lambda _: window)


def log_in(browser: Browser, web: Web) -> None:
    browser.open(f"{web.url}/dash/")
    browser.fill("Admin password", PASSWORD)
    browser.press("Log in")
    browser.wait(lambda: browser.all("nav[aria-label=Pages]"))


PUBLIC = {"front": "/", "host-public": "/host/pds6.example.com"}
PAGES = {
    "overview": "/dash/",
    "overview-24h": "/dash/?range=24h",
    "overview-7d": "/dash/?range=7d",
    "hosts": "/dash/hosts?sort=accounts&order=desc",
    "host": "/dash/hosts/pds6.example.com",
    "crawling": "/dash/crawling",
    "account": f"/dash/accounts?did={did(1)}",
    "consumers": "/dash/consumers",
    "block": "/dash/confirm/block?host=pds1.example.com",
}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("window", [DESK, PHONE], ids=lambda window: window.name)
def test_pictures(busy: Web, start_browser: StartBrowser, window: Screen, scheme: str) -> None:
    FOLDER.mkdir(exist_ok=True)
    browser = start_browser(window)
    browser.emulate_scheme(scheme)
    for name, path in PUBLIC.items():
        browser.open(busy.url + path)
        browser.look(name)
        browser.picture(FOLDER / f"{name}-{window.name}-{scheme}.png")
    browser.open(f"{busy.url}/dash/")
    browser.picture(FOLDER / f"login-{window.name}-{scheme}.png")
    log_in(browser, busy)
    for name, path in PAGES.items():
        browser.open(busy.url + path)
        browser.look(name)
        if name == "overview-7d":
            points_at_a_chart(browser)
        browser.picture(FOLDER / f"{name}-{window.name}-{scheme}.png")
    assert browser.complaints() == []


def points_at_a_chart(browser: Browser) -> None:
    plot = browser.find("#chart-events .plot")
    browser.driver.execute_script("arguments[0].focus()", plot)
    for _ in range(40):
        browser.press_key(Keys.ARROW_LEFT)
    browser.sees("UTC", "#tip")
    browser.sees("received", "#tip")
