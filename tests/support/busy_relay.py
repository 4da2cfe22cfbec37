"""A relay that looks like a week in production: 3,000 hosts, consumers, charts; nothing of it is in the network.

with busy_relay(tmp_path) as busy:
    busy.web.url                          # its pages and its API
    busy.account                          # an account of which the relay lacks the newest commit
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

from relay.atproto.crypto import parse_multikey
from relay.atproto.hostname import parse_endpoint
from relay.hosts.lifecycle import Cause
from relay.identity.identity import Identity
from relay.kit import metrics
from relay.store import hosts
from relay.store.open import open_database
from relay.stream.firehose import Firehose, Window
from tests.support.accounts import add_accounts, add_hosts
from tests.support.dash_week import plant_week
from tests.support.pds import FakePds
from tests.support.repo import SigningKey
from tests.support.web import Web

HOSTS = 3000
CONSUMERS = 23
FIRST_SEQ = 18_402_113_077
AGENTS = ("Jetstream/1.4 (+https://github.com/bluesky-social)", "tap/0.3.1", "feedgen-python/2", "goat/0.2", "websocat")
NAMES = ("alder", "birch", "cedar", "elm", "hazel", "juniper", "larch", "maple", "oak", "rowan", "spruce", "willow")
DROPS = ("signature-invalid", "rev-too-far-ahead", "chain-broken")


class Busy(NamedTuple):
    """The relay, and the DID of an account."""

    web: Web
    account: str


@contextmanager
def busy_relay(folder: Path) -> Iterator[Busy]:
    """Started but for what would connect to hosts."""
    with ExitStack() as stack:
        pds = stack.enter_context(FakePds())
        db = open_database(f"sqlite://{folder}/relay.sqlite", max_connections=4)
        stack.callback(db.close)
        add_hosts(db, 20)
        own = db.write(hosts.insert, pds.hostname, no_ssl=True, account_limit=100, trusted=False)
        account, *_ = add_accounts(
            db, own.id, [("active", "active"), ("takendown", "active"), ("takendown", "deleted")]
        )
        pds.repo_status[account] = {"did": account, "active": True, "rev": "3zzzzzzzzzz2a"}
        plant_week(folder / "relay" / "persist")
        web = Web(
            db,
            folder / "relay",
            64 << 20,
            operator_name="The Example Relay Project",
            operator_contact="relay@example.com",
            terms_url="https://example.com/terms",
            json_stream=True,
            initial_seq=FIRST_SEQ,
        )
        stack.callback(web.log.close)
        key = parse_multikey(SigningKey.create().multikey)
        web.identities[account] = Identity(account, parse_endpoint(pds.url), key, "alice.example.com")
        web.hosts.load()
        _fill_hosts(web)
        _fill_history(web)
        now = time.time()
        window = Window(FIRST_SEQ - 147_213_660, web.firehose.last_seq, now - 71.6 * 3600, now - 0.2, 72)
        stack.enter_context(patch.object(Firehose, "window", lambda _: window))
        for number in range(CONSUMERS):
            address, since = f"203.0.113.{number + 7}", datetime.now(UTC) - timedelta(hours=number * 5 + 1)
            agent = AGENTS[number % len(AGENTS)]
            consumer = stack.enter_context(web.services.consumers.connected(address, agent, since))
            consumer.position = web.firehose.last_seq - number * number % 90
            consumer.first_position = consumer.position - 2_000_000 * (number * 5 + 1)
        web.projector.start()
        stack.callback(web.projector.stop, 1)
        web.sequencer.start()
        stack.callback(web.sequencer.stop, 1)
        web.server.start()
        # The consumers that it shows never leave.
        stack.callback(web.server.stop, 0)
        yield Busy(web, account)


def _fill_hosts(web: Web) -> None:
    rng, now = random.Random(3), time.time()
    first = next(iter(web.registry)).row
    for number in range(len(list(web.registry)) + 1, HOSTS + 1):
        web.registry.add(replace(first, id=number, hostname=f"{rng.choice(NAMES)}{number}.pds.example"))
    for number, host in enumerate(web.registry):
        host.account_count = round(10 ** rng.uniform(0, 4))
        host.row.account_limit = round(host.account_count * 1.4 + 100)
        host.events_seen = round(host.account_count * rng.uniform(1, 300))
        host.row.last_event_at = now - rng.uniform(0, 60)
        host.last_event_time = datetime.fromtimestamp(host.row.last_event_at - rng.uniform(0.1, 2), UTC).isoformat()
        for _ in range(number % 7):
            host.drops.note(rng.choice(DROPS), now)
        if number % 23 == 5:
            host.row.last_event_at = now - rng.uniform(86_400, 900_000)
            host.note_error("connect-failed: no route to host", now - 4000)
            host.row.failures = 3 + number % 9
        elif number % 211 == 6:
            host.note_error("blocked: by an admin", now)
            web.registry.change(host, Cause.BLOCKED)
        else:
            host.connected_at = host.row.last_connected_at = now - rng.uniform(0, 400_000)


def _fill_history(web: Web) -> None:
    """Ten minutes of metrics, for the tiles and the tables; the charts are those of the week that was planted."""
    rng, now = random.Random(5), time.monotonic()
    with patch("relay.dash.history.time.monotonic", lambda: now):
        for _ in range(120):
            logged = round(5 * 610 * rng.uniform(0.9, 1.1))
            metrics.EVENTS_RECEIVED.labels("commit").inc(logged + 14)
            metrics.EVENTS_LOGGED.labels("commit").inc(logged)
            metrics.EVENTS_SENT.inc(logged * CONSUMERS)
            for reason, count in zip(DROPS, (9, 3, 2), strict=True):
                metrics.EVENTS_DROPPED.labels(reason).inc(rng.randint(0, count))
            for stage, mean in (("queued", 0.003), ("judged", 0.0012), ("logged", 0.014)):
                for _ in range(10):
                    metrics.EVENT_STAGE_SECONDS.labels(stage).observe(rng.expovariate(1 / mean))
            metrics.LOG_SYNC_SECONDS.observe(rng.expovariate(1 / 0.006))
            metrics.HUB_LAG_SECONDS.observe(rng.expovariate(1 / 0.002))
            now += 5.0
            web.history.sample()
    metrics.LOG_BYTES.set(63.2e9)
    # All these were taken within a moment.
    web.history.past._load()
    web.publish(500)
