"""What an operator does first: start, look, subscribe to a host, look again, stop."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.network import POST, Account, Ledger, ReferenceNetwork
from tests.support.child import Child
from tests.support.http import call
from tests.support.relay_process import RELAY, ROOT, RelayProcess


@pytest.mark.parametrize("command", [(RELAY, "serve"), (sys.executable, "wsgi.py")], ids=["relay serve", "wsgi.py"])
def test_both_entries_start_and_stop(tmp_path: Path, command: tuple[str, ...]) -> None:
    relay = RelayProcess(tmp_path, {}, command)
    try:
        relay.start()
        for path in ("/", "/_health", "/xrpc/_health", "/_healthz", "/_readyz"):
            assert call(relay.url + path).status == 200, path
        assert call(relay.url + "/_health").json == {"status": "ok"}
        assert b"relay_events_logged_total" in call(relay.metrics_url).body
        assert call(relay.metrics_health).json == {"status": "ok"}
        assert relay.xrpc("listHosts").json["hosts"] == []
        assert relay.xrpc("subscribeRepos").status == 426
        assert relay.xrpc("getNothing").status == 501
        assert call(f"{relay.url}/admin/pds/list").status == 401
        assert relay.stop() == 0
    finally:
        relay.close()


def test_what_alerts_wait_for_the_first_of_is_shown_as_none_from_the_start(tmp_path: Path) -> None:
    """Prometheus sees no rise in a counter that begins at 1."""
    relay = RelayProcess(tmp_path, {"RELAY_VALIDATOR_PROCESSES": "1"})
    try:
        relay.start()
        shown = call(relay.metrics_url).body.decode().splitlines()
        for counter in (
            'relay_events_dropped_total{reason="poison"}',
            'relay_events_dropped_total{reason="internal-error"}',
            *(f'relay_verifier_restarts_total{{cause="{cause}"}}' for cause in ("ended", "hung", "failed")),
            *(f'relay_events_logged_total{{kind="{kind}"}}' for kind in ("commit", "sync", "identity", "account")),
            "relay_log_failures_total",
            "relay_log_damage_total",
            "relay_store_failures_total",
            "relay_consumers_refused_total",
        ):
            assert f"{counter} 0.0" in shown, counter
    finally:
        relay.close()


def test_a_bad_value_stops_the_start_with_one_line(tmp_path: Path) -> None:
    child = Child((RELAY, "serve"), cwd=ROOT, env={"RELAY_REPLAY_WINDOW": "soon"})
    assert child.process.wait(120) == 2
    child.close()
    assert [line for line in child.lines if "RELAY_REPLAY_WINDOW" in line] == child.lines


def test_a_second_relay_on_the_same_data_does_not_start(tmp_path: Path) -> None:
    first, second = RelayProcess(tmp_path, {}), RelayProcess(tmp_path, {})
    try:
        first.start()
        with pytest.raises(AssertionError, match="store-locked"):
            second.start()
    finally:
        first.close()
        second.close()


def test_an_account_shows_up_in_every_query(network: ReferenceNetwork, relay: RelayProcess) -> None:
    pds = network.pds[0]
    relay.crawl(pds)
    ledger = Ledger()
    account = Account(pds, ledger)
    account.create()
    account.add(POST, text="hello")
    rev, _ = ledger.commits[account.did][-1]
    relay.wait_until(lambda: relay.xrpc("getLatestCommit", f"did={account.did}").json.get("rev") == rev)
    head = account.call("sync.getLatestCommit", query=f"did={account.did}")["cid"]
    assert relay.xrpc("getLatestCommit", f"did={account.did}").json == {"cid": head, "rev": rev}
    assert relay.xrpc("getRepoStatus", f"did={account.did}").json == {"did": account.did, "active": True, "rev": rev}
    listed = {"did": account.did, "head": head, "rev": rev, "active": True}
    relay.wait_until(lambda: relay.xrpc("listRepos").json["repos"] == [listed])
    redirect = relay.xrpc("getRepo", f"did={account.did}")
    assert redirect.status == 302
    assert redirect.headers["Location"].endswith(f"/xrpc/com.atproto.sync.getRepo?did={account.did}")
    name = pds.removeprefix("http://")
    relay.wait_until(lambda: relay.xrpc("listHosts").json["hosts"] != [])
    host = relay.xrpc("getHostStatus", f"hostname={name}").json
    assert (host["hostname"], host["status"], host["accountCount"]) == (name, "active", 1)

    relay.admin("repo/takeDown", {"did": account.did})
    assert relay.xrpc("getRepoStatus", f"did={account.did}").json["status"] == "takendown"
    assert relay.xrpc("getLatestCommit", f"did={account.did}").json["error"] == "RepoTakendown"
    relay.admin("repo/reverseTakedown", {"did": account.did})
    assert relay.xrpc("getRepoStatus", f"did={account.did}").json["active"] is True
    relay.admin(f"subs/killUpstream?host={name}", method="POST")
    relay.wait_until(lambda: relay.admin("subs/getUpstreamConns") == [])
