"""Promise 6: Every queue, cache, buffer and set has a bound, a metric for its size and a metric for that bound.

Each queue, cache and pool that the code makes is found: a new one needs a line here, and with it a measure. Then a
relay is given more than it can take of all at once, and looked at.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import gevent
import pytest

from tests.support.http import call
from tests.support.pds import FakePds, identity_frame
from tests.support.plc import FakePlc
from tests.support.queues import check_queues, named
from tests.support.relay_process import RelayProcess
from tests.support.repo import account_did

ROOT = Path(__file__).parents[2]
MODULES = sorted((ROOT / "relay").rglob("*.py"))
KINDS = {
    "deque",
    "OrderedDict",
    "Queue",
    "PriorityQueue",
    "LRUCache",
    "TTLCache",
    "Tally",
    "Pool",
    "cache",
    "lru_cache",
    "Parking",
}

# Where it is made, and the `queue` label that tells its size and capacity.
MEASURED = {
    "atproto/crypto.py _verifier": "parsed-keys",
    "identity/fair_queue.py _turns": "plc-lookups",
    "identity/fair_queue.py jobs": "plc-lookups",
    "kit/limits.py _full_at": "identity-refreshes",
    "kit/limits.py _paces": "api-addresses",
    "kit/limits.py _windows": "penalties",
    "hosts/rejected.py _frames": "rejected-frames-bytes",
    "ingest/accounts.py _busy": "busy-accounts",
    "stream/pending.py _moves": "account-moves",
    "stream/chunk_cache.py _made": "deflated-bytes",
    "identity/negatives.py _refused": "identity-failures",
    "identity/negatives.py _unanswered": "identity-silences",
    "identity/negatives.py _doubted": "identity-doubts",
    "collections/check.py _put_off": "collection-checks",
    "collections/check.py _silent": "collection-checks",
    "ingest/lanes.py _parking": "parked",
    "ingest/lanes.py queue": "partitions",
    "ingest/lines.py deliveries": "parked",
    "ingest/parking.py _waiting": "parked",
    "hosts/rejected.py numbers": "rejected-frames-bytes",
    "ingest/penalties.py _charges": "penalties",
    "ingest/rejections.py _claims": "foreign-claims",
    "ingest/rejections.py _lines": "drop-lines",
    "ingest/renumbering.py _checks": "renumbering-checks",
    "ingest/worker_supervisor.py _sent": "verifier-batches",
    "ingest/worker_supervisor.py _suspects": "verifier-events",
    "ingest/worker_supervisor.py _waiting": "verifier-events",
    "ingest/waits.py _asked": "status-checks",
    "ingest/waits.py _given_up": "identity-given-up",
    "ingest/waits.py _confirmed": "status-checks",
    "ingest/waits.py _desynchronized": "status-checks",
    "ingest/waits.py _unanswered": "status-checks",
    "stream/group_commit.py _queue": "sequencer",
    "web/account_answers.py _kept": "account-pages",
    "stream/read_budget.py waiting": "consumers",
    "web/callers.py _failures": "auth-failures",
    "dash/history.py _samples": "dash-samples",
    "dash/access.py _sessions": "dash-sessions",
    "web/metrics_server.py pool": "metrics-connections",
    "web/server.py pool": "api-connections",
    "admin/siblings.py _queues": "forwards",
}
# Bounded, and of so few things that no graph of them is worth its line.
FEW = {
    "atproto/syntax.py _is_collection": "1,024 texts of at most 1,024 characters",
    "store/postgres_pool.py _resting": "relay_store_connections",
    "store/postgres_pool.py _waiting": "greenlets that have room in the pool",
    "store/postgres.py pool": "relay_store_connections",
    "store/postgres.py _translated": "256 statements, each a text of the code",
    "store/sqlite.py _joined": "256 statements, each a text of the code",
    "store/sqlite.py _idle_readers": "relay_store_connections",
    "store/sqlite.py _idle_writer": "relay_store_connections",
    "comparison/matching.py _waiting": "lives while two relays are compared",
    "hosts/pull_hosts.py pool": "lives while hosts are pulled",
    "healing/accounts.py places": "four for each of the heal-hosts",
    "kit/vitals.py _pauses": "64 numbers",
    "kit/background.py _waiting": "greenlets, each once",
    "kit/background.py self._lines[name]": "greenlets, each once",
    "kit/descriptors.py _lines": "one window for all",
    "hosts/shares.py _queue": "greenlets, each once",
    "stream/group_commit.py _blocked": "the lanes, and the waits and requests that are bounded where they begin",
    "ingest/rejections.py _lines_in_all": "one window for all",
    "web/http_connection.py _lines": "one window for all",
}


def made(path: Path) -> Iterator[str]:
    """The names to which a module gives a queue, cache or pool, and its functions with a cache."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            kinds = {_called(call) for call in ast.walk(node.value) if isinstance(call, ast.Call)}
            target = node.targets[-1] if isinstance(node, ast.Assign) else node.target
            if kinds & KINDS:
                yield target.attr if isinstance(target, ast.Attribute) else ast.unparse(target)
        elif isinstance(node, ast.FunctionDef) and any(
            isinstance(each, ast.Call) and _called(each) in KINDS for each in node.decorator_list
        ):
            yield node.name


def _called(call: ast.Call) -> str:
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def test_everything_that_holds_many_things_is_measured() -> None:
    found = {f"{path.relative_to(ROOT / 'relay')} {name}" for path in MODULES for name in made(path)}
    assert found == MEASURED.keys() | FEW.keys()


def test_the_measures_exist() -> None:
    assert set(MEASURED.values()) <= named()


@pytest.mark.timeout(300)
def test_no_bound_is_passed_when_too_much_of_all_comes_at_once(tmp_path: Path) -> None:
    """Strangers by the thousand while the directory does not answer, from two hosts, and accounts that cannot be."""
    with FakePlc() as plc, FakePds() as pds, FakePds() as other:
        plc.latency = 60
        settings = {"RELAY_PLC_HOST": plc.url, "RELAY_VALIDATOR_PROCESSES": "1"}
        relay = RelayProcess(tmp_path, settings)
        relay.start()
        try:
            relay.crawl(pds.url, other.url)
            for host in (pds, other):
                relay.lift_limits(host.hostname)
                host.publish(1, identity_frame(1, account_did(1)))
            # Much that is old would be passed over, were it there when the relay comes.
            relay.wait_until(lambda: relay.metric("relay_events_received_total") >= 2)
            for host in (pds, other):
                for seq in range(2, 3001):
                    host.publish(
                        seq, identity_frame(seq, account_did(seq) if seq % 7 else f"did:web:host{seq}.invalid")
                    )
            while relay.metric("relay_queue_size", queue="parked") < 100:
                check_queues(call(relay.metrics_url).body.decode())
                gevent.sleep(0.05)
            for _ in range(10):
                check_queues(call(relay.metrics_url).body.decode())
                gevent.sleep(0.1)
        finally:
            relay.close()
