"""The unit file as systemd itself judges it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "systemd" / "relay.service"
MAX_EXPOSURE = 2.0

pytestmark = pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")


def analyze(*arguments: str | Path) -> str:
    done = subprocess.run(["systemd-analyze", *map(str, arguments)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_unit_is_well_formed(tmp_path: Path) -> None:
    installed = tmp_path / UNIT.name
    installed.write_text(UNIT.read_text().replace("/opt/relay/bin/relay", "/bin/true"))
    assert "relay.service" not in analyze("verify", installed)


def test_the_unit_is_hardened() -> None:
    report = analyze("security", "--offline=yes", UNIT)
    match = re.search(r"Overall exposure level for relay.service: ([\d.]+)", report)
    assert match, report
    assert float(match[1]) <= MAX_EXPOSURE
