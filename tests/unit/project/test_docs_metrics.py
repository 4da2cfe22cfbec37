"""docs/metrics.md against relay/kit/metrics.py, both ways; dashboards and alerts name nothing else."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

from relay.kit import metrics
from tests.support.tools import tool

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
DASHBOARD = ROOT / "conf" / "grafana-dashboard.json"
ALERTS = ROOT / "conf" / "alerts.rules.yml"

# What prometheus_client and the Flask exporter show by themselves, as docs/metrics.md says in words.
FOREIGN = {
    "process_cpu_seconds_total",
    "process_max_fds",
    "process_open_fds",
    "process_resident_memory_bytes",
    "process_start_time_seconds",
    "relay_backup_last_success_timestamp_seconds",
    "relay_http_request_duration_seconds",
    "relay_http_request_total",
    "up",
}
INSTRUMENTS = [value for value in vars(metrics).values() if isinstance(value, MetricWrapperBase)]
TYPES = {Counter: "counter", Gauge: "gauge", Histogram: "histogram", Info: "info"}


def name_of(instrument: MetricWrapperBase) -> str:
    """The name as a query writes it."""
    return f"{instrument._name}{ {Counter: '_total', Info: '_info'}.get(type(instrument), '') }"


def rows() -> list[str]:
    """The table's lines, as the code has them."""
    return [
        f"| `{name_of(found)}` | {TYPES[type(found)]} | {', '.join(f'`{label}`' for label in found._labelnames)} "
        f"| {found._documentation} |"
        for found in INSTRUMENTS
    ]


def named_in(text: str) -> set[str]:
    """The metrics that a text of queries names, histograms by their name without the part."""
    words = set(re.findall(r"\b(?:relay|process)_[a-z0-9_]+\b", text)) | ({"up"} & set(re.findall(r"\bup\b", text)))
    histograms = {name_of(found) for found in INSTRUMENTS if isinstance(found, Histogram)}
    histograms.add("relay_http_request_duration_seconds")
    return {base if (base := re.sub(r"_(bucket|sum|count)$", "", word)) in histograms else word for word in words}


def test_the_tables_have_every_instrument_once() -> None:
    """In groups by the question that they answer, which are not those of the code."""
    said = [line for line in DOCS.splitlines() if line.startswith("| `relay_") and line.count(" | ") == 3]
    assert sorted(said) == sorted(rows()), "\n".join(sorted(set(rows()) - set(said)))


def test_the_groups_are_questions() -> None:
    groups = re.findall(r"^## (.+)\n(?:.+\n|\n)*?\| metric \| type \|", DOCS, re.MULTILINE)
    assert len(groups) > 10 and all(group.endswith("?") for group in groups), groups


def test_what_others_show_is_explained() -> None:
    assert {name for name in FOREIGN - {"up"} if f"`{name}`" not in DOCS} == set()


def test_every_label_is_explained() -> None:
    labels = DOCS.split("## Labels")[1].split("\n## ")[0]
    for found in INSTRUMENTS:
        for label in found._labelnames:
            assert f"| `{name_of(found)}` `{label}` |" in labels, (name_of(found), label)


def test_every_queue_is_explained() -> None:
    """Each size has a capacity, and the other way round; the docs say what each of them is."""
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "relay").rglob("*.py"))
    sizes, capacities = (
        set(re.findall(rf'QUEUE_{what}\.labels\("([a-z-]+)"\)', code)) for what in ("SIZE", "CAPACITY")
    )
    assert sizes == capacities
    shown = set(re.findall(r'show_bound\(\s*"([a-z-]+)"', code))
    commits = set(re.findall(r'GroupCommit\(\s*"([a-z-]+)"', code))
    shown |= commits | {f"{name}-bytes" for name in commits}
    queues = DOCS.split("## Queues")[1].split("\n## ")[0]
    fair = set(re.findall(r'FairQueue\(\s*"([a-z-]+)"', code))
    assert set(re.findall(r"^\| `([a-z-]+)` \|", queues, re.MULTILINE)) == sizes | shown | fair


def test_the_dashboard_asks_for_what_exists() -> None:
    expressions = [target["expr"] for panel in panels() for target in panel["targets"]]
    named = named_in(" ".join(expressions))
    assert named <= {name_of(found) for found in INSTRUMENTS} | FOREIGN
    assert len(named) > 30


def test_the_dashboard_shows_every_instrument() -> None:
    named = named_in(DASHBOARD.read_text(encoding="utf-8"))
    assert {name_of(found) for found in INSTRUMENTS} <= named


def test_the_alerts_ask_for_what_exists() -> None:
    expressions = re.findall(r"^\s+expr: (.+)$", ALERTS.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(expressions) == ALERTS.read_text(encoding="utf-8").count("- alert:") > 0
    assert named_in(" ".join(expressions)) <= {name_of(found) for found in INSTRUMENTS} | FOREIGN


@pytest.mark.parametrize("path", [ALERTS, DASHBOARD], ids=lambda path: path.name)
def test_queries_ask_for_queues_that_exist(path: Path) -> None:
    asked = re.findall(r'queue=~?\\?"([a-z|-]+)', path.read_text(encoding="utf-8"))
    known = re.findall(r"^\| `([a-z-]+)` \|", DOCS.split("## Queues")[1], re.MULTILINE)
    assert {name for names in asked for name in names.split("|")} <= set(known)


def test_every_alert_has_a_heading_for_what_to_do() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    alerts = re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    assert re.findall(r"^### (Relay\w+)$", operations, re.MULTILINE) == alerts


@pytest.mark.skipif(not tool("promtool"), reason="promtool is not installed: `make test-setup` does that")
@pytest.mark.parametrize("what", [["rules", ALERTS.name], ["config", "prometheus.yml"]], ids=["rules", "config"])
def test_promtool_takes_them(what: list[str]) -> None:
    done = subprocess.run(
        [tool("promtool") or "", "check", *what], cwd=ALERTS.parent, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stdout + done.stderr


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"] if panel["type"] != "row"]
