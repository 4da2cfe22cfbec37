"""The revision as git itself says it, in every form that a checkout keeps it in, and in what is built of one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from relay.cli import main
from relay.kit import version
from relay.kit.version import checkout_revision, package_version, revision

ROOT = Path(__file__).parents[3]
BUILT_FROM = ("relay", "setup.py", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")


def git(folder: Path, *words: str) -> str:
    # Without what the variables of a surrounding git command say of another repository.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    names = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    done = subprocess.run(
        ["git", *names, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    git(folder, "init", "-q", "-b", "feature/x")
    git(folder, "commit", "-q", "--allow-empty", "-m", "one")
    return folder


def test_a_branch_with_a_file_of_its_own(checkout: Path) -> None:
    assert checkout_revision(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_branch_among_packed_ones(checkout: Path) -> None:
    git(checkout, "branch", "other/feature/x")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "two")
    git(checkout, "pack-refs", "--all")
    assert checkout_revision(checkout) == git(checkout, "rev-parse", "HEAD")
    git(checkout, "commit", "-q", "--allow-empty", "-m", "three")
    assert checkout_revision(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_commit_without_a_branch(checkout: Path) -> None:
    git(checkout, "checkout", "-q", "--detach")
    assert checkout_revision(checkout) == git(checkout, "rev-parse", "HEAD")


def test_a_worktree_has_a_revision_of_its_own(checkout: Path, tmp_path: Path) -> None:
    git(checkout, "worktree", "add", "-q", "-b", "beside", str(tmp_path / "worktree"))
    git(tmp_path / "worktree", "commit", "-q", "--allow-empty", "-m", "two")
    assert checkout_revision(tmp_path / "worktree") == git(tmp_path / "worktree", "rev-parse", "HEAD")
    git(checkout, "pack-refs", "--all")
    assert checkout_revision(tmp_path / "worktree") == git(tmp_path / "worktree", "rev-parse", "HEAD")


def test_what_is_not_a_checkout_has_none(checkout: Path, tmp_path: Path) -> None:
    (checkout / "folder").mkdir()
    git(tmp_path, "init", "-q", "empty")
    assert [checkout_revision(folder) for folder in (tmp_path, checkout / "folder", tmp_path / "empty")] == [None] * 3
    (tmp_path / ".git").write_text("gitdir: /nowhere\n")
    assert checkout_revision(tmp_path) is None


def test_the_command_line_says_both() -> None:
    shown = CliRunner().invoke(main, ["--version"])
    assert (shown.exit_code, shown.output) == (0, f"relay {package_version()}, revision {revision()}\n")


def test_what_is_built_has_the_revision_and_nothing_of_an_earlier_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("setuptools")
    source = tmp_path / "source"
    source.mkdir()
    for name in BUILT_FROM:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, source / name)
    git(source, "init", "-q")
    git(source, "add", ".")
    git(source, "commit", "-q", "-m", "one")
    made_of = git(source, "rev-parse", "HEAD")
    (source / "build/lib/relay").mkdir(parents=True)
    (source / "build/lib/relay/gone.py").touch()

    build(source, "build_py")
    assert (source / "build/lib/relay/kit/revision.txt").read_text() == f"{made_of}\n"
    assert not (source / "build/lib/relay/gone.py").exists()
    assert not (source / "relay/kit/revision.txt").exists(), "a checkout says its revision by itself"
    monkeypatch.setattr(version, "_HERE", source / "build/lib/relay/kit")
    assert revision() == made_of

    build(source, "sdist", "--formats=gztar")
    (archive,) = (source / "dist").iterdir()
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", archive, "-C", tmp_path / "unpacked"], check=True)
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    build(unpacked, "build_py")
    assert (unpacked / "build/lib/relay/kit/revision.txt").read_text() == f"{made_of}\n"


def build(source: Path, *words: str) -> None:
    done = subprocess.run([sys.executable, "setup.py", "-q", *words], cwd=source, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
