"""What a run of the conformance suite prints and writes, from results that are made up."""

from __future__ import annotations

from xml.etree import ElementTree

from relay.conformance import report
from relay.conformance.scenario import Scenario
from relay.conformance.suite import Played, by_rule
from relay.conformance.verdict import Verdict


def played(rule: str, verdict: Verdict, detail: str = "", *, good: bool = True) -> Played:
    name = f"a scenario that is {verdict}"
    return Played(Scenario(rule, name, good, False, False, lambda _: None), verdict, detail, 0.25)


RESULTS = by_rule(
    [
        played("cors", Verdict.NOT_OFFERED, "no such query"),
        played("signature", Verdict.KEPT),
        played("signature", Verdict.BROKEN, "it passes\x1b[31m", good=False),
        played("sync", Verdict.KEPT),
        played("sync", Verdict.NOT_OFFERED, "not on loopback"),
    ]
)


def test_one_broken_scenario_breaks_a_rule_and_one_kept_offers_it() -> None:
    assert {result.rule.name: result.verdict for result in RESULTS} == {
        "sync": Verdict.KEPT,
        "signature": Verdict.BROKEN,
        "cors": Verdict.NOT_OFFERED,
    }


def test_the_table_says_what_was_seen_and_where_the_rule_is() -> None:
    lines = report.table(RESULTS)
    at = next(i for i, line in enumerate(lines) if line.startswith("BROKEN"))
    assert "signature" in lines[at]
    assert lines[at + 1].strip() == "- must not: a scenario that is broken: it passes [31m"
    assert lines[at + 2].strip().startswith("https://")
    assert lines[-1] == "3 rules: 1 kept, 1 broken, 1 not offered (5 scenarios)"


def test_markdown_has_a_column_for_each_relay() -> None:
    text = report.markdown([("ours", RESULTS), ("another", RESULTS[:1])])
    head, _, *rows = text.split("\n\n")[0].splitlines()
    assert head == "| rule | ours | another |"
    assert [row.rsplit("|", 3)[1:3] for row in rows] == [
        [" kept ", " kept "],
        [" BROKEN ", " - "],
        [" not offered ", " - "],
    ]
    assert "`signature`: must not" in text


def test_junit_counts_failures_and_skipped_ones() -> None:
    suite = ElementTree.fromstring(report.junit(RESULTS))
    assert {name: suite.get(name) for name in ("tests", "failures", "skipped")} == {
        "tests": "5",
        "failures": "1",
        "skipped": "2",
    }
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "it passes [31m"
