"""The comparison counts what is better in the right direction, leaves out what was not measured, tells all relays the
same hosts, and builds others with the lines replaced that have to be.
"""

from __future__ import annotations

import json
import re
import sqlite3
import ssl
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from tests.bench.network.measure import Fleet
from tests.bench.network.traffic import Shape, index_of
from tests.bench.peers import __main__ as peers
from tests.bench.peers import indigo, rsky
from tests.bench.peers.contestant import Contestant
from tests.bench.peers.patching import Patch, replace_lines
from tests.bench.peers.rounds import ROUNDS
from tests.bench.peers.table import ROWS, compare, faults, text


def test_ratios_say_how_many_times_better() -> None:
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        "ours": {"load": [{"events_per_cpu_second": speed, "rss_mib": 50.0} for speed in (6000, 8000)]},
        "+ worker": {"load": [{"failed": "first events are missing"}]},
        "indigo": {
            "load": [{"events_per_cpu_second": 3500, "rss_mib": 200.0}],
            "paced-500": [{"latency_p50_ms": None}],
        },
        "rsky": {"load": [{"events_per_cpu_second": 14000}]},
    }
    lines = {line.label: line for line in compare(found)}
    speed, memory = lines["verified events per CPU second"], lines["RSS at the end, MiB"]
    assert speed.medians == {"ours": 7000, "+ worker": None, "indigo": 3500, "rsky": 14000}
    assert (speed.times_better, speed.goal) == ({"indigo": 2, "rsky": 0.5}, 2.5)
    assert memory.times_better == {"indigo": 4, "rsky": None}
    assert lines["CPU seconds per 1,000 events at 500 events/s"].times_better["indigo"] is None
    assert "RSS with 3,000 hosts, MiB" not in lines
    table = text("sqlite", list(lines.values())).split("\n")
    assert table[0] == "| sqlite | ours | + worker | indigo | rsky | times indigo | times rsky | goal |"
    assert "| verified events per CPU second | 7,000 | - | 3,500 | 14,000 | 2 | 0.5 | ≥ 2.5 |" in table


def test_every_row_is_of_a_round() -> None:
    assert {row.round for row in ROWS} == set(ROUNDS)


def test_a_run_that_is_not_right_is_marked() -> None:
    assert faults({"complete": True, "missing": 0}) == ""
    assert faults({"complete": False, "missing": 3, "out_of_order": 1}) == "missing 3, out of order 1"
    assert faults({"complete": False}) == "incomplete"
    assert faults({"failed": "first events are missing"}) == "first events are missing"


@pytest.mark.parametrize("tls", [False, True])
def test_hosts_directory_and_relay_agree_on_tls(tls: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.bench.network.measure.CACHE", tmp_path)
    relay = Contestant(["true"], {}, tmp_path, "http://127.0.0.1:9")
    with (
        Fleet(Shape(hosts=1, accounts=1, events=1, seed=1, records=20), tls=tls) as fleet,
        closing(sqlite3.connect(tmp_path / "relay.sqlite")) as database,
    ):
        (host,), (index,) = fleet.hosts, index_of(fleet.traffic[0])
        assert host.startswith("https://localhost:" if tls else "http://localhost:")
        context = ssl.create_default_context(cafile=fleet.trust.get("SSL_CERT_FILE"))
        with urlopen(f"{host}/xrpc/com.atproto.server.describeServer", context=context, timeout=60) as answer:
            assert answer.status == 200
        with urlopen(f"{fleet.plc}/{index.accounts[0].did}", timeout=60) as answer:
            assert json.load(answer)["service"][0]["serviceEndpoint"] == host
        columns = "created_at, updated_at, hostname, no_ssl, account_limit, trusted, status, last_seq, account_count"
        database.execute(f"CREATE TABLE host ({columns})")
        relay.prepare(fleet)
        rows = database.execute("SELECT hostname, no_ssl FROM host").fetchall()
    assert rows == [(host.partition("://")[2], not tls)]


def _never(*_: object) -> Contestant:
    raise AssertionError("started")


def test_rsky_takes_no_part_with_tls() -> None:
    tls = {name for name, one in ROUNDS.items() if one.tls}
    assert tls == {"paced-tls-500", "tls-hosts"}
    for which in tls:
        assert "without TLS" in faults(peers.go_through(which, "rsky", _never, None))


Sources = tuple[Path, Patch, str]


@pytest.fixture(params=[rsky, indigo])
def sources(request: pytest.FixtureRequest, tmp_path: Path) -> Sources:
    """Files in which each line that is replaced stands once, what is to be replaced, and in whose sources."""
    whose = request.param
    for file, before, _ in whose.PATCH:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as source:
            source.write(f"let it = {before};\n")
    return tmp_path, whose.PATCH, whose.__name__.rpartition(".")[2]


def test_lines_of_another_relay_are_replaced(sources: Sources) -> None:
    folder, patch, whose = sources
    replace_lines(folder, patch, whose, Path(__file__))
    for file, _, after in patch:
        assert f"let it = {after};\n" in (folder / file).read_text()


def test_a_patch_that_does_not_fit_says_where(sources: Sources) -> None:
    folder, patch, whose = sources
    file, before, _ = patch[0]
    with pytest.raises(ValueError, match=rf"^{whose} is of another version: {re.escape(file)} has 0 times"):
        replace_lines(folder / "elsewhere", patch, whose, Path(__file__))
    (folder / file).write_text(f"{before}\n{before}")
    with pytest.raises(ValueError, match=rf"^{whose} is of another version: {re.escape(file)} has 2 times"):
        replace_lines(folder, patch, whose, Path(__file__))


def test_without_a_checkout_or_cargo_rsky_takes_no_part(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RSKY_DIR", raising=False)
    assert rsky.missing() == "RSKY_DIR names no checkout"
    monkeypatch.setenv("RSKY_DIR", str(tmp_path))
    assert rsky.missing() == f"there is no rsky-relay in {tmp_path}"
    (tmp_path / "rsky-relay").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert rsky.missing() == "cargo is not installed"


def test_without_go_there_is_nothing_to_compare_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("RSKY_DIR", raising=False)
    for name in ("BUILDS", "CACHE"):
        monkeypatch.setattr(f"tests.bench.peers.__main__.{name}", tmp_path)
    monkeypatch.setattr("sys.argv", ["peers"])
    assert peers.main() == 2
    assert capsys.readouterr().err.splitlines() == [
        "without indigo: Go is not installed",
        "without rsky: RSKY_DIR names no checkout",
        "there is nothing to compare with",
    ]
