"""What a run has found, as a table for terminals, Markdown for documents, and JUnit for continuous integration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from relay.conformance.suite import Played, RuleResult
from relay.conformance.verdict import Verdict

MARKS = {Verdict.KEPT: "kept", Verdict.BROKEN: "BROKEN", Verdict.NOT_OFFERED: "not offered"}


def summary(results: Sequence[RuleResult]) -> str:
    """One line: how many rules are kept, broken, not offered."""
    counts = Counter(result.verdict for result in results)
    played = sum(len(result.played) for result in results)
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict)
    return f"{len(results)} rules: {told} ({played} scenarios)"


def table(results: Sequence[RuleResult]) -> list[str]:
    """A line for each rule, and under one that is not kept what was seen."""
    lines = []
    for result in results:
        lines.append(f"{MARKS[result.verdict]:<12} {result.rule.name:<20} {result.rule.text}")
        lines += [f"{'':12} - {_told(one)}" for one in result.played if one.verdict is not Verdict.KEPT]
        if result.verdict is not Verdict.KEPT:
            lines.append(f"{'':12} {result.rule.source}")
    return [*lines, "", summary(results)]


def markdown(columns: Sequence[tuple[str, Sequence[RuleResult]]]) -> str:
    """A table with a column for each relay, and below it what is not kept."""
    names = [name for name, _ in columns]
    lines = [f"| rule | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    by_name = [{result.rule.name: result for result in results} for _, results in columns]
    for name, result in by_name[0].items():
        marks = [MARKS[of[name].verdict] if name in of else "-" for of in by_name]
        lines.append(f"| [`{name}`]({result.rule.source}) {result.rule.text} | {' | '.join(marks)} |")
    for relay, results in columns:
        seen = [one for result in results for one in result.played if one.verdict is not Verdict.KEPT]
        if seen:
            lines += ["", f"{relay}: what was seen", ""]
            lines += [f"- `{one.scenario.rule}`: {_told(one)}" for one in seen]
    return "\n".join(lines) + "\n"


def junit(results: Sequence[RuleResult]) -> bytes:
    """One test case for each scenario; what is broken is a failure, what is not offered is skipped."""
    played = [one for result in results for one in result.played]
    counts = Counter(one.verdict for one in played)
    suite = ElementTree.Element(
        "testsuite",
        name="relay conform",
        tests=str(len(played)),
        failures=str(counts[Verdict.BROKEN]),
        skipped=str(counts[Verdict.NOT_OFFERED]),
        errors="0",
        time=f"{sum(one.seconds for one in played):.3f}",
    )
    for one in played:
        case = ElementTree.SubElement(
            suite, "testcase", classname=one.scenario.rule, name=_title(one), time=f"{one.seconds:.3f}"
        )
        if one.verdict is Verdict.BROKEN:
            ElementTree.SubElement(case, "failure", message=_printable(one.detail))
        elif one.verdict is Verdict.NOT_OFFERED:
            ElementTree.SubElement(case, "skipped", message=_printable(one.detail))
    return b'<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(suite) + b"\n"


def _title(played: Played) -> str:
    return f"{'must' if played.scenario.good else 'must not'}: {played.scenario.name}"


def _told(played: Played) -> str:
    return f"{_title(played)}: {_printable(played.detail)}"


def _printable(text: str) -> str:
    """A relay's words, without what a terminal would obey and XML could not hold."""
    return "".join(character if character.isprintable() else " " for character in text)[:500]
