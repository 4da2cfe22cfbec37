"""`docs/invariants.md` names the attack on each invariant of `docs/design.md`, and each attack says what it attacks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PROMISES = ROOT / "tests" / "promises"


def words(text: str) -> str:
    return " ".join(text.split())


def invariants() -> dict[int, str]:
    """The invariants that the design states, by number."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8").split("\n## Invariants\n")[1].split("\n## ")[0]
    found = re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |\Z)", text, re.MULTILINE | re.DOTALL)
    return {int(number): words(stated) for number, stated in found}


def attacks() -> dict[int, Path]:
    """The files that the table names, by number."""
    text = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| `([^`]+)` \|", text, re.MULTILINE)
    assert len({number for number, _ in rows}) == len(rows)
    return {int(number): ROOT / name if "/" in name else PROMISES / name for number, name in rows}


def test_every_invariant_has_an_attack_that_is_there() -> None:
    assert invariants().keys() == attacks().keys() == set(range(1, max(invariants()) + 1))
    assert all(path.is_file() for path in attacks().values())


def test_every_attack_is_named() -> None:
    text = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8")
    assert {path.name for path in PROMISES.glob("test_*.py")} <= set(re.findall(r"`(test_\w+\.py)`", text))


def test_an_attack_begins_with_what_it_attacks() -> None:
    for number, path in attacks().items():
        if path.parent == PROMISES:
            assert path.name.startswith(f"test_{number:02}_")
            stated = words(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "")
            assert stated.startswith(f"Promise {number}: {invariants()[number]}"), path.name
