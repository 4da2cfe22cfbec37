"""What runs here: the version of the installed package, and the git revision that it was made from.

Used by the command line and `vitals`, and by setup.py when it builds. A checkout says its revision by itself; a wheel
and a source archive have it in a file beside this one. Imports nothing but the standard library, and runs no git: a
service may have none, and git refuses folders of other users.
"""

from __future__ import annotations

import re
from importlib.metadata import version
from pathlib import Path

DISTRIBUTION = "atproto-relay"
UNKNOWN = "unknown"

# Written into builds by setup.py, never into a checkout.
BAKED = "revision.txt"

_REVISION = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_HERE = Path(__file__).parent


def package_version() -> str:
    """The version as the package's metadata has it, such as "0.2.0"."""
    return version(DISTRIBUTION)


def revision() -> str:
    """The git commit of this code in hexadecimal, or `unknown`."""
    return _written(_HERE / BAKED) or checkout_revision(_HERE.parents[1]) or UNKNOWN


def checkout_revision(root: Path) -> str | None:
    """The commit that is checked out in `root`; None when it is not the top of a git checkout."""
    git = root / ".git"
    if git.is_file():
        # A worktree or submodule: `gitdir: PATH`.
        git = root / git.read_text("utf-8").removeprefix("gitdir:").strip()
    head = _line(git / "HEAD")
    if not head.startswith("ref:"):
        return head if _REVISION.fullmatch(head) else None
    name = head.removeprefix("ref:").strip()
    # Worktrees share the branches of the repository that they belong to.
    shared = git / _line(git / "commondir")
    return _written(git / name) or _written(shared / name) or _packed(shared / "packed-refs", name)


def _packed(path: Path, name: str) -> str | None:
    """A branch's commit among those that `git gc` put into one file: `COMMIT NAME` a line."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except OSError:
        return None
    found = (line.split() for line in lines if line.endswith(f" {name}"))
    return next((words[0] for words in found if _REVISION.fullmatch(words[0])), None)


def _written(path: Path) -> str | None:
    found = _line(path)
    return found if _REVISION.fullmatch(found) else None


def _line(path: Path) -> str:
    """The first line of a file; empty when it cannot be read."""
    try:
        return path.read_text("utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError):
        return ""
