"""How many cores there are, as the machine and the control groups around the process say."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relay.kit.cores import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))


def cores(tmp_path: Path, membership: str, files: dict[str, str]) -> int:
    (tmp_path / "membership").write_text(membership)
    for name, text in files.items():
        file = tmp_path / "groups" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return usable_cores(tmp_path / "membership", tmp_path / "groups")


def test_without_control_groups_it_is_the_cores_that_the_process_may_run_on(tmp_path: Path) -> None:
    assert usable_cores(tmp_path / "none", tmp_path / "none") == 8
    assert cores(tmp_path, "", {}) == 8
    assert cores(tmp_path, "nonsense\n0:\n0::/system.slice/relay.service\n", {}) == 8


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000\n", 8),
        ("200000 100000\n", 2),
        ("199999 100000\n", 1),
        ("50000 100000\n", 1),
        ("1600000 100000\n", 8),
        ("", 8),
        ("nonsense", 8),
        ("100000 0\n", 8),
    ],
)
def test_a_quota_of_version_2(tmp_path: Path, quota: str, expected: int) -> None:
    group = "system.slice/relay.service"
    assert cores(tmp_path, f"0::/{group}\n", {f"{group}/cpu.max": quota}) == expected


def test_the_tightest_group_around_the_process_counts(tmp_path: Path) -> None:
    files = {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n", "cpu.max": "max 100000\n"}
    assert cores(tmp_path, "0::/a/b/c\n", files) == 3


def test_a_container_sees_its_own_group_as_the_root(tmp_path: Path) -> None:
    assert cores(tmp_path, "0::/\n", {"cpu.max": "100000 100000\n"}) == 1
    assert cores(tmp_path, "0::/../../elsewhere\n", {"cpu.max": "100000 100000\n"}) == 1


@pytest.mark.parametrize(("quota", "expected"), [("-1\n", 8), ("150000\n", 1), ("300000\n", 3)])
def test_a_quota_of_version_1(tmp_path: Path, quota: str, expected: int) -> None:
    files = {"cpu/docker/x/cpu.cfs_quota_us": quota, "cpu/docker/x/cpu.cfs_period_us": "100000\n"}
    assert cores(tmp_path, "4:memory:/other\n3:cpu,cpuacct:/docker/x\n0::/\n", files) == expected
