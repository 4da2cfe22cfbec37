"""The command line against a running relay: what people see, what scripts get, and the exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from operator import contains
from pathlib import Path
from socket import SHUT_RDWR
from typing import Any

import pytest
from click.testing import CliRunner, Result
from gevent import subprocess

from relay.cli import COMMANDS, main
from relay.commands.admin import STATUSES
from relay.commands.indigo_options import IGNORED, PULL_HOSTS, ROOT, SERVE, SWITCHES
from relay.config import setting_lines, unknown_variables
from relay.hosts.lifecycle import Status
from relay.web.callers import MAX_FAILURES
from tests.support.accounts import add_accounts, add_hosts, did
from tests.support.pds import FakePds
from tests.support.strangers import RawServer, certificate, judge_forms, reply
from tests.support.wait import until
from tests.support.web import PASSWORD, Web

RELAY = Path(sys.executable).parent / "relay"
Run = Callable[..., Result]


@pytest.fixture
def run(web: Web) -> Run:
    """Runs a command that asks `web`."""

    def run(*words: str, **environment: str | None) -> Result:
        settings = {"RELAY_API_BIND": f"127.0.0.1:{web.server.port}", "RELAY_ADMIN_PASSWORD": f"{PASSWORD},other"}
        return CliRunner().invoke(main, words, env=settings | environment)

    return run


@pytest.fixture
def pds(web: Web, run: Run) -> Iterator[FakePds]:
    with FakePds() as pds:
        added = run("hosts", "add", pds.url)
        assert (added.exit_code, added.output) == (0, f"{pds.url} is subscribed to\n")
        until(lambda: web.hosts.connected() == [pds.hostname])
        yield pds


def test_hosts_are_listed_limited_and_blocked(run: Run, pds: FakePds) -> None:
    lines = run("hosts", "list").output.splitlines()
    assert lines[0].split()[:3] == ["HOST", "STATUS", "CONNECTED"]
    assert lines[1].split() == [pds.hostname, "active", "yes", "0", "100", "-1", "0", "-"]
    assert run("hosts", "limits", pds.hostname, "--accounts", "500", "--per-second", "9").exit_code == 0
    assert run("hosts", "limits", pds.hostname, "--silence-alerts").exit_code == 0
    (host,) = json.loads(run("hosts", "list", "--json").output)
    assert (host["RepoLimit"], host["PerSecondEventRate"]["Max"]) == (500, 9)
    assert host["AccountLimitAlertsSilenced"] is True
    assert run("hosts", "block", pds.hostname).exit_code == 0
    assert len(json.loads(run("hosts", "list", "--json", "--status", "banned").output)) == 1
    assert json.loads(run("hosts", "list", "--json", "--search", "nothing").output) == []
    assert json.loads(run("hosts", "unblock", pds.hostname, "--json").output) == {"success": "true"}


def test_a_host_is_disconnected_and_its_rates_follow_from_its_limit_again(run: Run, web: Web, pds: FakePds) -> None:
    assert run("hosts", "limits", pds.hostname, "--per-second", "9", "--per-day", "10").exit_code == 0
    assert run("hosts", "limits", pds.hostname, "--reset-rates", "--per-hour", "77").exit_code == 0
    (host,) = json.loads(run("hosts", "list", "--json").output)
    assert [host[f"Per{tier}EventRate"]["Max"] for tier in ("Second", "Hour", "Day")] == [50, 77, 21_000]
    assert run("hosts", "limits", pds.hostname, "--per-second", "0").exit_code == 2
    assert run("hosts", "disconnect", pds.hostname).output == f"{pds.hostname} is disconnected\n"
    assert web.hosts.connected() == []
    assert run("hosts", "disconnect", pds.hostname).exit_code == 1


def test_a_hosts_cursor(run: Run, pds: FakePds) -> None:
    assert run("hosts", "cursor", pds.hostname).output == "-1\n"
    for options, cursor in ((("--set", "7"), "7"), (("--oldest",), "0"), (("--live",), None)):
        pds.cursors.clear()
        assert run("hosts", "cursor", pds.hostname, *options).exit_code == 0
        until(partial(contains, pds.cursors, cursor))
    assert run("hosts", "cursor", pds.hostname, "--live", "--set", "1").exit_code == 2
    assert run("hosts", "cursor", "none.example").exit_code == 1


def test_a_host_is_healed(run: Run, web: Web, pds: FakePds) -> None:
    assert run("hosts", "heal", pds.hostname, "--status").exit_code == 1
    until(web.hosts.connected)
    done = run("hosts", "heal", pds.hostname)
    assert done.exit_code == 0 and "accounts" in done.stderr
    said = json.loads(run("hosts", "heal", pds.hostname, "--status", "--json").output)
    assert (said["state"], said["reason"], said["listed"]) == ("done", "admin", 0)
    assert run("hosts", "heal", pds.hostname, "--stop").exit_code == 1
    pds.answers["listRepos"] = lambda _: (200, b"{}")
    failed = run("hosts", "heal", pds.hostname)
    assert failed.exit_code == 1 and "heal-answer" in failed.output
    assert run("hosts", "heal", pds.hostname, "--stop", "--status").exit_code == 2
    assert run("hosts", "heal", "none.example").exit_code == 1


def test_crawling_is_closed_limited_and_opened(run: Run, web: Web) -> None:
    assert run("crawl", "close").output == "crawl requests are closed to the public\n"
    assert run("crawl", "limit", "7").exit_code == 0
    assert json.loads(run("crawl", "status", "--json").output) == {"enabled": False, "new_hosts_per_day": 7}
    assert run("crawl", "open").exit_code == 0 and web.hosts.new_hosts.crawl_enabled
    assert "yes" in run("crawl", "status").output


def test_without_a_password_nothing_is_guessed(run: Run) -> None:
    for _ in range(MAX_FAILURES + 1):
        refused = run("bans", "list", RELAY_ADMIN_PASSWORD=None)
        assert refused.exit_code == 2 and "no admin password is set" in refused.stderr
    assert run("bans", "list", "--password", "wrong").stderr.startswith("relay: AuthenticationRequired")
    assert run("bans", "list").exit_code == 0


def test_accounts_are_shown_taken_down_and_restored(run: Run, web: Web) -> None:
    (host,) = add_hosts(web.db, 1)
    (account,) = add_accounts(web.db, host, [("active", "active")])
    assert json.loads(run("accounts", "show", account, "--json").output)["active"] is True
    assert run("accounts", "takedown", account).output == f"{account} is taken down\n"
    assert run("accounts", "takedowns").output == f"{account}\n"
    assert "takendown" in run("accounts", "show", account).output
    assert run("accounts", "restore", account).exit_code == 0
    assert json.loads(run("accounts", "takedowns", "--json").output) == []


def test_domains_are_banned_and_freed(run: Run) -> None:
    assert run("bans", "add", "spammers.net").output == "spammers.net is banned\n"
    assert run("bans", "list").output == "spammers.net\n"
    assert run("bans", "remove", "spammers.net").exit_code == 0
    assert json.loads(run("bans", "list", "--json").output) == []
    again = run("bans", "remove", "spammers.net")
    assert again.exit_code == 1 and "is not banned" in again.stderr


def test_consumers_and_status(run: Run, web: Web, pds: FakePds) -> None:
    with web.services.consumers.connected("127.0.0.1", "evil\x1b[31m/1", datetime.now(UTC)):
        shown = run("consumers").output
        assert "evil?[31m/1" in shown and "\x1b" not in shown
        status = json.loads(run("status", "--json").output)
    assert status["health"] == "ok" and status["consumers"] == status["connected"] == 1
    assert "by status" in run("status").output
    web.problem = "log: disk full"
    ill = run("status")
    assert (ill.exit_code, ill.stderr) == (1, "relay: HTTP 500: log: disk full\n")


def test_exit_codes_tell_failures_apart(run: Run, web: Web) -> None:
    assert run("accounts", "takedown", did(9)).exit_code == 1
    assert run("bans", "list", "--password", "wrong").stderr.startswith("relay: AuthenticationRequired")
    assert run("hosts", "limits", "pds1.example.com").exit_code == 2
    assert run("hosts", "nothing").exit_code == 2
    assert run("bans", "list", RELAY_API_BIND="nowhere").exit_code == 2
    unreachable = run("bans", "list", "--url", "http://127.0.0.1:1")
    assert unreachable.exit_code == 3 and unreachable.stderr.startswith("relay: no relay answers at")
    assert run("bans", "list", "--url", "nonsense").exit_code == 3


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n", 3),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}", 3),
        (b"HTTP/1.1 500 Error\r\nContent-Length: 100\r\n\r\n{}", 1),
        (reply(b"null"), 3),
        (reply(b"<html>"), 3),
        (reply(b'{"error": "A\\u001b[31m", "message": "one\\n\\u001btwo"}', status="400 Bad Request"), 1),
        (b"HTTP/1.1 301 Moved\r\nLocation: http://elsewhere.test/\r\nContent-Length: 0\r\n\r\n", 1),
    ],
)
@pytest.mark.parametrize("words", [("bans", "list"), ("bans", "add", "x.test")])
def test_whatever_answers_in_the_relays_place_is_told_in_one_line(
    run: Run, words: tuple[str, ...], answer: bytes, code: int
) -> None:
    def answer_once(sock: Any) -> None:
        sock.sendall(answer)
        sock.shutdown(SHUT_RDWR)

    with RawServer(answer_once) as server:
        told = run(*words, "--url", server.url)
        assert (told.exit_code, told.stdout) == (code, "")
        assert told.stderr.startswith("relay: ") and told.stderr.count("\n") == 1 and "\x1b" not in told.stderr
        assert server.connections == 1


def test_no_proxy_leads_back_to_this_machine(run: Run) -> None:
    assert run("bans", "list", http_proxy="http://127.0.0.1:1").exit_code == 0


def test_a_status_that_no_host_has_is_refused(run: Run) -> None:
    assert run("hosts", "list", "--status", "ofline").exit_code == 2
    assert set(STATUSES) == {status.value for status in Status}


def test_password_and_address_can_come_from_the_relays_env_file(run: Run, web: Web, tmp_path: Path) -> None:
    env_file = tmp_path / "relay.env"
    env_file.write_text(f"RELAY_ADMIN_PASSWORD='{PASSWORD}'\nRELAY_API_BIND=:{web.server.port}\n")
    unset = {"RELAY_ADMIN_PASSWORD": None, "RELAY_API_BIND": None}
    assert run("bans", "list", "--env-file", str(env_file), **unset).exit_code == 0
    assert run("--env-file", str(env_file), "bans", "list", **unset).exit_code == 0
    # A variable that is set wins.
    refused = run("--env-file", str(env_file), "bans", "list", **unset | {"RELAY_ADMIN_PASSWORD": "wrong"})
    assert refused.exit_code == 1
    assert run("--env-file", str(tmp_path / "missing"), "bans", "list").exit_code == 2


def test_a_relay_behind_tls_is_verified_by_chain_and_name_alone(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As hosts are (tests/integration/net/test_http.py): the form of the certificate is not judged."""
    judge_forms(monkeypatch)
    ca_file, context = certificate(tmp_path, "localhost")
    with RawServer(lambda sock: sock.sendall(reply(b'{"banned_domains": []}')), context) as server:
        assert run("bans", "list", "--url", server.url).exit_code == 3
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        assert run("bans", "list", "--url", server.url).exit_code == 0
        assert run("bans", "list", "--url", server.url.replace("localhost", "127.0.0.1")).exit_code == 3


def test_an_env_file_is_never_run_as_shell(run: Run, web: Web, tmp_path: Path) -> None:
    env_file = tmp_path / "relay.env"
    password = f"$(touch {tmp_path}/ran) `touch {tmp_path}/ran` $HOME"
    env_file.write_text(f"RELAY_ADMIN_PASSWORD={password}\n")
    done = run("--env-file", str(env_file), "bans", "list", RELAY_ADMIN_PASSWORD=None)
    assert done.exit_code == 1 and "AuthenticationRequired" in done.output
    assert not (tmp_path / "ran").exists()


def test_help_imports_nothing_of_the_relay() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from relay.cli import main\n"
        "assert CliRunner().invoke(main, ['--help']).exit_code == 0\n"
        "assert not {'gevent', 'flask', 'urllib3', 'prometheus_client'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_command_has_help() -> None:
    for name in COMMANDS:
        shown = CliRunner().invoke(main, [name, "--help"])
        assert shown.exit_code == 0 and shown.output.startswith("Usage:"), name


def test_serve_lists_every_setting() -> None:
    shown = CliRunner().invoke(main, ["serve", "--help"]).output
    assert all(f"  {name}" in shown for name, _, _ in setting_lines())


@pytest.mark.parametrize("command", [[RELAY, "serve"], [sys.executable, Path(__file__).parents[3] / "wsgi.py"]])
def test_a_bad_setting_stops_the_start_with_one_line(command: list[str | Path]) -> None:
    done = subprocess.run(command, env={"RELAY_REPLAY_WINDOW": "soon"}, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2
    assert done.stderr == "relay: config: RELAY_REPLAY_WINDOW='soon': not a duration such as 72h, 90s or 500ms\n"


@pytest.mark.parametrize(
    ("words", "refused"),
    [
        ("serve --bind :99999", "RELAY_API_BIND=':99999'"),
        ("serve --disable-request-crawl --lenient-sync-validation=maybe --env prod", "RELAY_LENIENT_SYNC_VALIDATION="),
        ("--log-level loud serve --host-concurrency 40", "RELAY_LOG_LEVEL='loud'"),
        ("serve --admin-password a --admin-password b --log-level loud", "RELAY_LOG_LEVEL='loud'"),
        ("serve --enable-db-tracing --enable-jaeger-tracing=false --enable-otel-tracing --bind :x", "RELAY_API_BIND="),
        ("pull-hosts --relay-host http://127.0.0.1:1 --db-url mysql://db --trusted-domains a.test", "DATABASE_URL="),
        ("pull-hosts --skip-host-checks=false --db-url mysql://db", "DATABASE_URL="),
    ],
)
def test_options_of_indigo_are_settings_that_win(words: str, refused: str) -> None:
    environment = {"RELAY_API_BIND": ":1", "LOG_LEVEL": "info"}
    done = subprocess.run([RELAY, *words.split()], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith(f"relay: config: {refused}") and done.stderr.count("\n") == 1


def test_options_of_indigo_are_known_settings_and_in_no_help() -> None:
    named = {**ROOT, **PULL_HOSTS, **SERVE, **SWITCHES}
    assert unknown_variables({name: "" for name in named.values() if "SLACK" not in name}) == []
    for command in ([], ["serve"], ["pull-hosts"]):
        shown = CliRunner().invoke(main, [*command, "--help"]).output
        assert not [option for option in (*named, *IGNORED) if f"--{option} " in shown]


def test_log_is_inspected_verified_and_followed(web: Web) -> None:
    web.publish(12)
    directory = web.log.directory

    def log(*words: str) -> Result:
        return CliRunner().invoke(main, ["log", *words], env={"RELAY_PERSIST_DIR": str(directory)})

    (segment,) = json.loads(log("inspect", "--json").output)
    assert (segment["first_seq"], segment["last_seq"]) == (1, 12)
    assert log("inspect").output.splitlines()[0].startswith("SEGMENT")
    assert log("verify").output == f"{segment['segment']}  12 records  sound\n"
    assert [json.loads(line)["seq"] for line in log("tail", "--json").output.splitlines()] == list(range(3, 13))
    assert log("tail", "--after", "11").output.split()[0::2] == ["12", "identity"]
    path = directory / segment["segment"]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    broken = log("verify")
    assert broken.exit_code == 1 and "damaged" in broken.output


def test_whoever_has_read_enough_of_the_log_sees_no_error(web: Web) -> None:
    web.publish(2000, size=200)
    environment = {"RELAY_PERSIST_DIR": str(web.log.directory)}
    command = [str(RELAY), "log", "tail", "--after", "0", "--json"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as tail:
        assert tail.stdout is not None and tail.stderr is not None
        assert json.loads(tail.stdout.readline())["seq"] == 1
        tail.stdout.close()
        assert tail.stderr.read() == b""


def test_log_needs_a_folder_to_look_at(tmp_path: Path) -> None:
    missing = {"RELAY_PERSIST_DIR": str(tmp_path / "none")}
    for words in ("inspect", "verify", "tail"):
        shown = CliRunner().invoke(main, ["log", words], env=missing)
        assert shown.exit_code == 2 and "RELAY_PERSIST_DIR" in shown.stderr


def test_pull_hosts_fills_the_database(database_url: str) -> None:
    with FakePds() as other_relay:
        other_relay.hosts = [{"hostname": "pds1.example.com", "seq": 5, "status": "active"}]
        settings = {
            "RELAY_HOST": other_relay.url,
            "DATABASE_URL": database_url,
            "RELAY_SKIP_HOST_CHECKS": "true",
        }
        for added in (1, 0):
            done = subprocess.run([RELAY, "pull-hosts"], env=settings, capture_output=True, text=True, timeout=30)
            assert (done.returncode, done.stdout) == (0, f"{added} hosts added from {other_relay.url}\n"), done.stderr
        # An option wins over its variable. Nobody answers for this host.
        other_relay.hosts = [{"hostname": "pds2.example.com", "seq": 5, "status": "active"}]
        for option, added in (("--skip-host-checks=false", 0), ("--skip-host-checks", 1)):
            words = f"{RELAY} pull-hosts {option}".split()
            done = subprocess.run(words, env=settings, capture_output=True, text=True, timeout=30)
            assert (done.returncode, done.stdout) == (0, f"{added} hosts added from {other_relay.url}\n"), done.stderr
        other_relay.hosts = None  # type: ignore[assignment]
        failed = subprocess.run([RELAY, "pull-hosts"], env=settings, capture_output=True, text=True, timeout=30)
        assert failed.returncode == 1 and failed.stderr.startswith("relay: "), failed.stderr
