"""Several pytest processes that share one run: nothing is run twice or left out, and a failure anywhere is told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PASSING = """
import os, pathlib, pytest

@pytest.mark.parametrize("number", range(20))
def test_it_is_noted(number):
    with (pathlib.Path(__file__).parent / "noted").open("a") as notes:
        notes.write(f"{__name__[-1]}{number}\\n")
"""


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.side_by_side", "--jobs=2", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)


def write(folder: Path, **tests: str) -> None:
    for name, source in tests.items():
        (folder / f"test_{name}.py").write_text(source)


def test_each_test_is_run_once(tmp_path: Path) -> None:
    write(tmp_path, **dict.fromkeys("abcde", PASSING))
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    wanted = [f"{name}{number}" for name in "abcde" for number in range(20)]
    assert sorted((tmp_path / "noted").read_text().split()) == sorted(wanted)
    assert "\n100 passed in " in done.stdout


COSTLY = """
import os, pathlib, pytest

@pytest.fixture(scope="session")
def running_network():
    with (pathlib.Path(__file__).parent / "made").open("a") as notes:
        notes.write("once\\n")
"""
USING = """
import time

def test_with(running_network): time.sleep(0.5)
def test_without(): time.sleep(0.5)
"""


def test_a_costly_fixture_is_made_once(tmp_path: Path) -> None:
    write(tmp_path, **dict.fromkeys("abcd", USING))
    (tmp_path / "conftest.py").write_text(COSTLY)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "made").read_text() == "once\n"
    assert "\n8 passed in " in done.stdout


@pytest.mark.parametrize(
    ("broken", "told"),
    [
        ("def test_it(): assert 6 * 9 == 42", " (call)\n"),
        ("def test_it(): assert 6 * 9 == 42", "1 failed"),
        ("import os\ndef test_it(): os._exit(9)", ""),
    ],
    ids=["a failure as it comes", "a failure", "a process that dies"],
)
def test_what_goes_wrong_in_one_process_is_told(tmp_path: Path, broken: str, told: str) -> None:
    write(tmp_path, a=PASSING, b=broken, c=PASSING)
    done = run(tmp_path)
    assert done.returncode != 0
    assert told in done.stdout
