"""Documents lead somewhere: relative links have their file and heading, and the index has every document."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.glob("*.md")])


def prose(path: Path) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(path: Path) -> frozenset[str]:
    """What a `#…` may name in a document: its headings, as GitHub and others make anchors of them."""
    found: list[str] = []
    for heading in re.findall(r"^#+ (.+)$", prose(path), re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        repeated = sum(re.fullmatch(rf"{re.escape(anchor)}(-\d+)?", other) is not None for other in found)
        found.append(f"{anchor}-{repeated}" if repeated else anchor)
    return frozenset(found)


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose(path))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_relative_links_lead_somewhere(path: Path) -> None:
    broken = []
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        there = (path.parent / name).resolve() if name else path
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(link)
    assert broken == []


def test_the_index_has_every_document() -> None:
    named = {link.partition("#")[0] for link in links(DOCS / "README.md")}
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} <= named


def test_the_figures_of_the_readme_are_in_the_benchmarks() -> None:
    figure = r"([\d.,]+)(?: \w+)?"
    row = rf"^\| (?!-|on )[^|]+ \| {figure} \| {figure} \| (?:{figure} )?\|$"
    rows = re.findall(row, prose(ROOT / "README.md"), re.MULTILINE)
    measured = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    assert len(rows) >= 4
    for figures in rows:
        cells = r" \|(?:.*\|)? ".join(re.escape(one) for one in figures if one)
        assert re.search(rf"\| {cells} \|", measured), figures
