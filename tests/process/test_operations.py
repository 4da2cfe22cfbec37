"""docs/operations.md, followed to the letter, where there is a machine to throw away."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.process.follow_operations import EXIT_SKIPPED

SCRIPT = Path(__file__).with_name("follow_operations.py")


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_document_leads_to_a_public_relay() -> None:
    done = subprocess.run([sys.executable, SCRIPT], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == EXIT_SKIPPED:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stdout[-10_000:]
