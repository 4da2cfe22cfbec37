"""docs/operations.md has the cause and remedy of every line that is logged as a warning or worse, and of no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
LEVELS = {"warning", "error", "exception", "critical"}


def levels(called: ast.expr) -> set[str]:
    """The methods of the logger that an expression may be."""
    if isinstance(called, ast.IfExp):
        return levels(called.body) | levels(called.orelse)
    named = isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name) and called.value.id == "log"
    return {called.attr} if named and isinstance(called, ast.Attribute) else set()


def texts() -> Iterator[str]:
    """The text of each warning in the code."""
    for path in sorted((ROOT / "relay").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        # A method of the logger that was chosen before: `say = log.debug if … else log.warning`.
        chosen = {
            target.id: levels(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            methods = chosen.get(node.func.id, set()) if isinstance(node.func, ast.Name) else levels(node.func)
            if methods & LEVELS:
                text = node.args[0]
                assert isinstance(text, ast.Constant) and isinstance(text.value, str), (path, node.lineno)
                yield text.value


def documented() -> list[str]:
    section = DOCS.split("\n## When the log warns\n")[1].split("\n## ")[0]
    firsts = [row.split(" | ")[0] for row in re.findall(r"^\| (`.*)$", section, re.MULTILINE)]
    return [span for first in firsts for span in re.findall(r"`([^`]+)`", first)]


def test_every_warning_has_its_cause_and_remedy() -> None:
    logged = {re.sub(r"%[-+0-9.]*[a-z]", "…", text) for text in texts()}
    found = documented()
    assert sorted(found) == sorted(set(found))
    assert set(found) - logged == set(), "no longer in the code"
    assert logged - set(found) == set(), "not in docs/operations.md"
    assert len(found) > 50
