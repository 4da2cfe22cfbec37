"""`docs/conformance.md` has a line for each rule of the suite, with its source; and our relay keeps them all."""

from __future__ import annotations

import re
from pathlib import Path

from relay.conformance.rules import RULES

DOCS = (Path(__file__).parents[3] / "docs" / "conformance.md").read_text(encoding="utf-8")


def test_the_table_has_every_rule() -> None:
    rows = re.findall(r"^\| \[`([a-z0-9-]+)`\]\(([^)]+)\) (.*?) \| ([\w ]+) \| ([\w ]+) \|$", DOCS, re.MULTILINE)
    assert [(name, source, text) for name, source, text, *_ in rows] == [
        (rule.name, rule.source, rule.text) for rule in RULES.values()
    ]
    assert {ours for *_, ours, _ in rows} == {"kept"}
