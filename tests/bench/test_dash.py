"""What one refresh of the dashboard's heaviest pages costs the hub on a relay with 3,000 hosts."""

from __future__ import annotations

import time
from typing import Any

import pytest

from relay.store import hosts
from relay.store.database import Transaction
from relay.store.open import open_database
from tests.support.web import PASSWORD, Web

HOSTS = 3_000


def insert_hosts(tx: Transaction) -> None:
    for number in range(HOSTS):
        hosts.insert(tx, f"pds{number}.example.com", no_ssl=False, account_limit=1_000, trusted=False)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("dash")
    db = open_database(f"sqlite://{folder}/relay.sqlite", max_connections=4)
    db.write(insert_hosts)
    web = Web(db, folder, 64 << 20)
    web.registry.load()
    for number, host in enumerate(web.registry):
        host.note_event("2026-01-01T00:00:00.000Z", time.time())
        for _ in range(number % 3):
            host.drops.note("signature-invalid", time.time())
    yield web
    web.log.close()
    db.close()


@pytest.mark.parametrize("path", ["/dash/", "/dash/hosts", "/dash/hosts?sort=lag", "/dash/hosts?sort=drops&search=1"])
def test_refresh(benchmark: Any, web: Web, path: str) -> None:
    client = web.app.test_client()
    client.post("/dash/login", data={"password": PASSWORD}, headers={"Sec-Fetch-Site": "same-origin"})
    answer = benchmark(client.get, path, headers={"X-Dash-Live": "1"})
    assert answer.status_code == 200


def test_sample(benchmark: Any, web: Web) -> None:
    benchmark(web.history.sample)
