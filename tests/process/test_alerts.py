"""Two sibling relays as processes: the one with a webhook tells the chat of a full host, and its sibling so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.chat import Chat
from tests.support.pds import FakePds
from tests.support.plc import FakePlc
from tests.support.relay_process import RelayProcess
from tests.support.repo import RepoBuilder, SigningKey, account_did, create, did_document


@pytest.mark.timeout(300)
def test_a_full_host_is_told_of_once(tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    chat = Chat()
    with FakePlc() as plc, FakePds() as pds:
        repo = RepoBuilder(account_did(1), SigningKey.create(seed=1))
        plc.documents[repo.did] = did_document(repo.did, repo.key, pds.url)
        common = {"RELAY_PLC_HOST": plc.url, "RELAY_ACCOUNT_LIMIT_ALERT_INTERVAL": "500ms"}
        sibling = RelayProcess(tmp_path / "sibling", common | {"DATABASE_URL": new_database_url()})
        telling = RelayProcess(
            tmp_path / "telling",
            common
            | {
                "DATABASE_URL": new_database_url(),
                "RELAY_SIBLING_RELAYS": sibling.url,
                "RELAY_ACCOUNT_LIMIT_ALERT_WEBHOOK_URL": chat.url,
            },
        )
        try:
            for relay in (sibling, telling):
                relay.start()
                relay.crawl(pds.url)
            pds.publish(1, repo.commit(create("app.bsky.feed.post/3kaaaaaaaaaaa", {})).frame(1))
            telling.wait_metric("relay_events_logged_total", 1)
            telling.admin("pds/changeLimits", {"host": pds.hostname, "repo_limit": 1})
            telling.wait_until(lambda: bool(chat.texts))
            sibling.wait_until(lambda: sibling.admin("pds/list")[0]["AccountLimitAlertState"] == "warning")
            telling.kill()
            telling.start()
            telling.admin("pds/changeLimits", {"host": pds.hostname, "repo_limit": 100})
            telling.wait_until(lambda: len(chat.texts) > 1)
            sibling.wait_until(lambda: sibling.admin("pds/list")[0]["AccountLimitAlertState"] == "ok")
        finally:
            telling.close()
            sibling.close()
        chat.close()
    assert [text.splitlines()[0] for text in chat.texts] == [
        "Relay: 1 host(s) at 80% of their account limit or above",
        "Relay: 1 host(s) below 80% of their account limit again",
    ]
    assert f"- {pds.hostname}: 100.0% used (1 / 1 accounts)" in chat.texts[0]
    assert "secret" not in telling.log.read_text(), "the webhook's address is in the log"
