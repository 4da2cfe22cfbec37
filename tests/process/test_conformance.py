"""`relay conform` as it is called: our relay keeps every rule, and one with a fault is found out."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from relay.conformance.rules import RULES
from tests.support.http import free_ports
from tests.support.relay_process import RELAY, RelayProcess

CARELESS = Path(__file__).parents[1] / "support" / "careless_relay.py"

pytestmark = pytest.mark.timeout(600)


def conform(*options: str | Path) -> subprocess.CompletedProcess[str]:
    command: list[str | Path] = [RELAY, "conform", "--patience", "40", *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, stdin=subprocess.DEVNULL)


def verdicts(output: str) -> dict[str, str]:
    """What the table says of each rule."""
    lines = (
        [line[:12].strip() for line in output.splitlines()],
        [line[13:].split(" ", 1)[0] for line in output.splitlines()],
    )
    return {name: verdict for verdict, name in zip(*lines, strict=True) if name in RULES and verdict}


@pytest.mark.slow
def test_our_relay_keeps_every_rule(tmp_path: Path, new_database_url: Callable[[], str]) -> None:
    run = conform(
        "--command", f"{RELAY} serve", "--env", f"DATABASE_URL={new_database_url()}",
        "--junit", tmp_path / "junit.xml", "--markdown", tmp_path / "table.md", "--name", "ours",
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert verdicts(run.stdout) == dict.fromkeys(RULES, "kept")
    suite = ElementTree.parse(tmp_path / "junit.xml").getroot()
    assert suite.get("failures") == "0"
    assert len(suite) > 2 * len(RULES)
    assert "| ours |" in (tmp_path / "table.md").read_text()


def careless(fault: str, *rules: str) -> subprocess.CompletedProcess[str]:
    chosen = [option for rule in rules for option in ("--rule", rule)]
    return conform(
        "--command", f"{sys.executable} -P {CARELESS} {fault}", "--env", "RELAY_VALIDATOR_PROCESSES=0", *chosen
    )  # fmt: skip


def test_a_relay_that_takes_any_signature_is_found_out() -> None:
    run = careless("signatures", "signature", "low-s", "commit")
    assert run.returncode == 1, run.stdout + run.stderr
    assert verdicts(run.stdout) == {"commit": "kept", "signature": "BROKEN", "low-s": "BROKEN"}
    assert "must not: a sync of another key is passed: a #sync that another key signed passes" in run.stdout


def test_a_relay_that_ends_is_started_again_for_what_is_left() -> None:
    run = careless("ends", "account-event", "user-agent")
    assert run.returncode == 1, run.stdout + run.stderr
    assert verdicts(run.stdout) == {"user-agent": "kept", "account-event": "BROKEN"}
    broken = [line for line in run.stdout.splitlines() if "- must" in line]
    assert [line.strip() for line in broken] == [
        "- must: a status that nobody knows passes: the relay, or its firehose, ends"
    ]


def test_a_relay_that_runs_is_tested_as_well(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    relay = RelayProcess(
        tmp_path, {"RELAY_PLC_HOST": f"http://127.0.0.1:{port}", "RELAY_NEW_HOSTS_PER_DAY_LIMIT": "1000"}
    )
    relay.start()
    try:
        options = ["--url", relay.url, "--password", relay.password, "--directory-port", str(port)]
        run = conform(*options, "--rule", "commit", "--rule", "hidden")
        assert run.returncode == 0, run.stdout + run.stderr
        assert verdicts(run.stdout) == {"commit": "kept", "hidden": "kept"}
        lost = conform(*options[:4], "--directory-port", str(free_ports(1)[0]), "--rule", "commit", "--patience", "5")
        assert lost.returncode == 3
        assert "it never asked the directory" in lost.stderr
    finally:
        relay.close()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--command", "false"], 3, "it ended with 1"),
        (["--command", "/nowhere/relay"], 3, "does not start"),
        (["--url", "http://127.0.0.1:1"], 3, "cannot be tested"),
        ([], 2, "either --command or --url"),
        (["--command", "false", "--rule", "no-such-rule"], 2, "there is no rule no-such-rule"),
        (["--command", "false", "--env", "nothing"], 2, "NAME=value"),
    ],
)
def test_what_cannot_be_tested_is_said(options: list[str], code: int, said: str) -> None:
    run = conform(*options)
    assert run.returncode == code, run.stdout + run.stderr
    assert said in run.stderr
