"""How many hosts come in, and from where: the daily limit over a restart, and another relay's list."""

import json
from dataclasses import replace
from typing import Any

import gevent
import pytest
from gevent.event import Event
from gevent.queue import Queue

from relay.atproto.hostname import Endpoint
from relay.comparison.relays import FollowedRelay
from relay.hosts import autoscale, crawl_checks, hosts, new_hosts, pull_hosts
from relay.hosts.hosts import Hosts
from relay.kit.errors import AddressRefused, CrawlRefused, HttpError
from relay.net.http import GuardedHttp, Response
from relay.store import hosts as table
from tests.support.fake_relay import LOCAL, Relay
from tests.support.pds import FakePds
from tests.support.present import present
from tests.support.wait import until


@pytest.fixture
def taken_at_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public names that no test may look up pass the check."""
    monkeypatch.setattr(crawl_checks, "check_answers", lambda http, endpoint, **_: None)


def listed(hostname: str, seq: int = 5, status: str = "active", **more: object) -> dict[str, Any]:
    return {"hostname": hostname, "seq": seq, "status": status, "accountCount": 1, **more}


def test_the_daily_limit_counts_public_requests_and_survives_a_restart(relay: Relay, taken_at_their_word: None) -> None:
    settings = replace(LOCAL, new_hosts_per_day=2)
    running = relay.start(settings)
    running.new_hosts.request("one.pds.invalid-tld", admin=True)
    running.new_hosts.request("two.pds.test", admin=False)
    running.new_hosts.request("two.pds.test", admin=False)
    running.new_hosts.request("three.pds.test", admin=False)
    relay.stop()
    running = relay.start(settings)
    with pytest.raises(CrawlRefused) as caught:
        running.new_hosts.request("four.pds.test", admin=False)
    assert caught.value.status == 429
    running.new_hosts.request("four.pds.test", admin=True)
    running.new_hosts.per_day = 3
    running.new_hosts.request("five.pds.test", admin=False)
    relay.stop()
    assert relay.start(settings).new_hosts.per_day == 3


def test_a_host_that_asks_several_times_at_once_is_one_new_host(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    answered, go_on = Queue[str](), Event()

    def slow(http: GuardedHttp, endpoint: Endpoint, **_: bool) -> None:
        answered.put(endpoint.hostname)
        go_on.wait(60)

    monkeypatch.setattr(crawl_checks, "check_answers", slow)
    running = relay.start(replace(LOCAL, new_hosts_per_day=2))
    requests = [gevent.spawn(running.new_hosts.request, "one.pds.test", admin=False) for _ in range(10)]
    for _ in requests:
        answered.get(timeout=60)
    go_on.set()
    gevent.joinall(requests, raise_error=True)
    running.new_hosts.request("two.pds.test", admin=False)
    assert [report.host.hostname for report in running.reports()] == ["one.pds.test", "two.pds.test"]
    assert not running.new_hosts._coming, "which is as long as requests are under way"


def test_a_host_that_is_refused_gives_its_place_back(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(http: GuardedHttp, endpoint: Endpoint, **_: bool) -> None:
        raise CrawlRefused("crawl-unreachable", "HostNotFound", 400, "it does not answer")

    monkeypatch.setattr(new_hosts, "CHECKS_AT_ONCE", 1)
    monkeypatch.setattr(crawl_checks, "DESCRIBE_SECONDS", 0.1)
    monkeypatch.setattr(crawl_checks, "check_answers", refuse)
    running = relay.start()
    for _ in range(3):
        with pytest.raises(CrawlRefused, match="it does not answer"):
            running.new_hosts.request("one.pds.test", admin=False)


def test_an_admins_host_does_not_wait_behind_a_crowd(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Queue[str] = Queue()

    def silent(http: GuardedHttp, endpoint: Endpoint, **_: bool) -> None:
        asked.put(endpoint.hostname)
        if endpoint.hostname.startswith("silent"):
            gevent.sleep(30)

    monkeypatch.setattr(crawl_checks, "check_answers", silent)
    running = relay.start(replace(LOCAL, new_hosts_per_day=1000))
    crowd = [gevent.spawn(running.new_hosts.request, f"silent{one}.pds.test", admin=False) for one in range(100)]
    for _ in range(20):
        asked.get(timeout=60)
    running.new_hosts.request("ours.pds.test", admin=True)
    assert "ours.pds.test" in [report.host.hostname for report in running.reports()]
    gevent.killall(crowd)


def test_strangers_are_not_told_what_the_resolver_says() -> None:
    class Resolver:
        def __init__(self, error: Exception) -> None:
            self.error = error

        def get(self, *_: object, **__: object) -> Response:
            raise self.error

    told = []
    for error in (AddressRefused("name-unresolved", "x"), AddressRefused("address-refused", "x is 10.0.0.5")):
        with pytest.raises(CrawlRefused) as caught:
            crawl_checks.check_answers(Resolver(error), Endpoint("x.pds.test", True), in_detail=False)
        told.append(caught.value.detail)
        with pytest.raises(CrawlRefused, match=error.reason):
            crawl_checks.check_answers(Resolver(error), Endpoint("x.pds.test", True), in_detail=True)
    assert told == ["the host cannot be reached"] * 2
    with pytest.raises(CrawlRefused, match=r"cannot be reached: http-timeout$"):
        late = Resolver(HttpError("http-timeout", "10.0.0.5"))
        crawl_checks.check_answers(late, Endpoint("x.pds.test", True), in_detail=False)


def test_trusted_hosts_get_their_limit_when_they_are_made(relay: Relay, taken_at_their_word: None) -> None:
    running = relay.start(replace(LOCAL, trusted_domains=("*.pds.test",)))
    running.new_hosts.request("one.pds.test", admin=False)
    running.new_hosts.request("other.test", admin=False)
    limits = {
        report.host.hostname: (report.host.row.trusted, report.host.account_limit) for report in running.reports()
    }
    assert limits == {"one.pds.test": (True, 10_000_000), "other.test": (False, 100)}


def test_another_relays_hosts_are_paged_filtered_and_taken_once(relay: Relay) -> None:
    with FakePds() as other:
        other.hosts = [listed(f"h{number}.pds.test") for number in range(25)]
        other.hosts += [
            listed("h1.pds.test"),
            listed("idle.pds.test", status="idle"),
            listed("offline.pds.test", status="offline"),
            listed("banned.pds.test", status="banned"),
            listed("silent.pds.test", seq=0),
            listed("localhost:2583"),
            listed("not a host"),
            listed("sub.evil.test"),
            {"hostname": 7},
        ]
        other.hosts.append("nonsense")
        relay.db.write(table.add_ban, "evil.test")
        progress = []
        taken = pull_hosts.pull_hosts(
            relay.db,
            relay.http,
            other.url,
            lambda endpoint: pull_hosts.store_host(relay.db, LOCAL, endpoint),
            batch=10,
            check=False,
            progress=lambda *counts: progress.append(counts),
        )
        stored = {row.hostname for row in relay.db.read(table.all_rows)}
        assert stored == {f"h{number}.pds.test" for number in range(25)} | {"idle.pds.test"}
        assert taken == 26
        assert progress == [(10, 10), (20, 20), (30, 26), (35, 26)]
        assert not pull_hosts.unfinished(relay.db)


def test_a_host_begins_with_what_another_relay_carries_of_it_and_a_fifth(relay: Relay) -> None:
    counts = [None, -5, True, "9000", 10, 100, 101, 5_000, 10**30]
    with FakePds() as other:
        other.hosts = [listed(f"h{number}.pds.test") | {"accountCount": count} for number, count in enumerate(counts)]
        pull_hosts.pull_hosts(
            relay.db,
            relay.http,
            other.url,
            lambda offered: pull_hosts.store_host(relay.db, LOCAL, offered),
            check=False,
        )
        stored = {row.hostname: row.account_limit for row in relay.db.read(table.all_rows)}
        limits = [stored[f"h{number}.pds.test"] for number in range(len(counts))]
        assert limits == [100, 100, 100, 100, 100, 120, 122, 6_000, 10_000_000]
        relay.db.write(lambda tx: tx.execute("DELETE FROM host"))
        running = relay.start(replace(LOCAL, bootstrap_host=other.url, skip_host_checks=True))
        until(lambda: len(list(running.reports())) == len(counts))
        assert {report.host.hostname: report.host.account_limit for report in running.reports()} == stored


def test_a_pull_that_was_stopped_goes_on_where_it_was(relay: Relay) -> None:
    def take(offered: pull_hosts.Offered) -> bool:
        if offered.endpoint.hostname == "h15.pds.test":
            raise HttpError("http-broken", "stopped")
        return True

    with FakePds() as other:
        other.hosts = [listed(f"h{number}.pds.test") for number in range(30)]
        with pytest.raises(HttpError):
            pull_hosts.pull_hosts(relay.db, relay.http, other.url, take, batch=10, check=False)
        assert pull_hosts.unfinished(relay.db)
        asked = len(other.requests)
        assert (
            pull_hosts.pull_hosts(relay.db, relay.http, other.url, lambda endpoint: True, batch=10, check=False) == 20
        )
        assert "cursor=10" in other.requests[asked]


@pytest.mark.parametrize("cursor", ["\ud800", "a\0b", "c" * 5_000])
def test_a_list_ends_with_a_cursor_that_cannot_be_kept(
    relay: Relay, monkeypatch: pytest.MonkeyPatch, cursor: str
) -> None:
    page = json.dumps({"hosts": [listed("h1.pds.test")], "cursor": cursor}).encode()
    monkeypatch.setattr(GuardedHttp, "get", lambda *_, **__: Response(200, {}, page))
    taken = pull_hosts.pull_hosts(relay.db, relay.http, "https://relay.test", lambda offered: True, check=False)
    assert taken == 1
    assert not pull_hosts.unfinished(relay.db)


def test_a_list_that_hands_out_one_cursor_for_ever_ends(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    with FakePds() as other:
        monkeypatch.setattr(other, "_method", lambda *_: (200, b'{"hosts":[{}],"cursor":"again"}'))
        assert pull_hosts.pull_hosts(relay.db, relay.http, other.url, lambda endpoint: True, check=False) == 0
        assert len(other.requests) == 2


def test_a_list_that_goes_in_circles_ends(relay: Relay) -> None:
    with FakePds() as other:
        following = {None: "a", "a": "b", "b": "c", "c": "a"}

        def page(query: dict[str, str]) -> tuple[int, bytes]:
            return 200, json.dumps({"hosts": [{}], "cursor": following[query.get("cursor")]}).encode()

        other.answers["listHosts"] = page
        assert pull_hosts.pull_hosts(relay.db, relay.http, other.url, lambda endpoint: True, check=False) == 0
        assert FollowedRelay(relay.http, other.url, {}).hosts() == {}
        assert len(other.requests) < 20


def test_a_relay_is_believed_to_list_hosts_but_nothing_else(relay: Relay) -> None:
    """Their names become part of commands that an admin is shown."""
    with FakePds() as other:
        names = ["pds.example.com", "x.example.com;reboot", "x.example.com/;reboot", "$(reboot)", "", "-", "X.test", 5]
        other.hosts = [{"hostname": name, "status": "active"} for name in names]
        assert FollowedRelay(relay.http, other.url, {}).hosts() == {"pds.example.com": "active"}


def test_hosts_that_do_not_answer_are_not_taken(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def answers(http: GuardedHttp, endpoint: Endpoint) -> None:
        asked.append(endpoint.hostname)
        if endpoint.hostname == "dead.pds.test":
            raise CrawlRefused("crawl-unreachable", "HostNotFound", 400, "dead")

    monkeypatch.setattr(crawl_checks, "check_answers", answers)
    with FakePds() as other:
        other.hosts = [listed("dead.pds.test"), listed("live.pds.test")]
        taken = []

        def take(offered: pull_hosts.Offered) -> bool:
            taken.append(offered.endpoint.hostname)
            return True

        pull_hosts.pull_hosts(relay.db, relay.http, other.url, take)
        assert taken == ["live.pds.test"]
        assert sorted(asked) == ["dead.pds.test", "live.pds.test"]


def test_an_empty_relay_pulls_in_the_background_and_a_filled_one_does_not(relay: Relay) -> None:
    with FakePds() as other:
        other.hosts = [listed(f"h{number}.pds.test") for number in range(3)]
        settings = replace(LOCAL, bootstrap_host=other.url, skip_host_checks=True)
        running = relay.start(settings)
        until(lambda: len(list(running.reports())) == 3)
        relay.stop()
        asked = len(other.requests)
        relay.start(settings)
        until(lambda: len(list(running.reports())) == 3)
        assert len(other.requests) == asked


def test_an_account_limit_grows_once_a_day_also_over_a_restart(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "relay.audit")
    monkeypatch.setattr(autoscale, "KNOWN_SECONDS", 0.0)
    running = relay.start()
    running.new_hosts.request(pds.url, admin=True)
    until(running.connected)
    relay.host(pds).account_count = 95
    grow(running)
    assert running.report(pds.hostname).host.account_limit == 125
    assert [record.message for record in caplog.records if record.name == "relay.audit"] == [
        f"account limit of {pds.hostname} raised from 100 to 125 by itself"
    ]
    relay.host(pds).account_count = 125
    grow(running)
    assert running.report(pds.hostname).host.account_limit == 125
    relay.stop()

    running = relay.start()
    until(running.connected)
    relay.host(pds).account_count = 125
    grow(running)
    assert running.report(pds.hostname).host.account_limit == 125
    monkeypatch.setattr(autoscale, "SPACING_SECONDS", 0.0)
    grow(running)
    assert running.report(pds.hostname).host.account_limit == 156
    assert present(relay.db.read(table.by_hostname, pds.hostname)).account_limit == 156


@pytest.mark.parametrize("autoscale_on", [True, False])
def test_no_account_limit_grows_when_the_operator_does_not_want_it(
    relay: Relay, pds: FakePds, monkeypatch: pytest.MonkeyPatch, autoscale_on: bool
) -> None:
    monkeypatch.setattr(autoscale, "KNOWN_SECONDS", 0.0)
    monkeypatch.setattr(hosts, "FLUSH_SECONDS", 0.02)
    monkeypatch.setattr(hosts, "AUTOSCALE_SECONDS", 0.0)
    running = relay.start(replace(LOCAL, account_limit_autoscale=autoscale_on))
    running.new_hosts.request(pds.url, admin=True)
    until(running.connected)
    relay.host(pds).account_count = 95
    if autoscale_on:
        until(lambda: running.report(pds.hostname).host.account_limit == 125)
        return
    gevent.sleep(0.5)
    assert running.report(pds.hostname).host.account_limit == 100


def grow(running: Hosts) -> None:
    running._autoscale.run(running._registry)
