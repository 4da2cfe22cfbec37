"""Each alert, judged by Prometheus itself over four hours: when it fires, what comes near, and that health is quiet.

Beside the relay in question stands another one that is well: no alert may take the two together.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.tools import tool

RULES = Path(__file__).parents[3] / "conf" / "alerts.rules.yml"
HEAD, *BLOCKS = re.split(r"^(?=      - alert: )", RULES.read_text(encoding="utf-8"), flags=re.MULTILINE)
# The text of each rule, by its alert.
ALERTS = {block.split()[2]: block for block in BLOCKS}
MINUTES = 240
# When the alerts are looked at, and for how long what is told below has been going on then.
AT = "3h"

Series = dict[str, str]

# Values as promtool writes them, a minute apart: `5x240` stays, `0+6x240` rises by 6 a minute.
WELL: Series = {
    "up": "1x",
    'relay_build_info{mode="relay"}': "1x",
    "process_start_time_seconds": "-900000x",
    "process_resident_memory_bytes": "500000000x",
    "process_open_fds": "3000x",
    "process_max_fds": "65536x",
    "relay_healthy": "1x",
    'relay_events_received_total{kind="commit"}': "0+6000x",
    'relay_events_logged_total{kind="commit"}': "0+5900x",
    'relay_events_logged_total{kind="sync"}': "0x",
    'relay_events_dropped_total{reason="duplicate"}': "0+3000x",
    'relay_events_dropped_total{reason="signature-invalid"}': "0+6x",
    'relay_events_dropped_total{reason="internal-error"}': "0x",
    'relay_events_dropped_total{reason="poison"}': "0x",
    'relay_verifier_restarts_total{cause="ended"}': "0x",
    "relay_hosts_connected": "100x",
    'relay_hosts{status="active"}': "100x",
    'relay_hosts{status="offline"}': "10x",
    'relay_hosts{status="banned"}': "900x",
    "relay_edge_connected": "0x",
    "relay_cluster_active": "0x",
    "relay_cluster_connected": "0x",
    "relay_cluster_term": "0x",
    "relay_log_failures_total": "0x",
    "relay_backup_last_success_timestamp_seconds": "0x",
    "relay_log_damage_total": "0x",
    "relay_log_trimmed_early_total": "0x",
    "relay_log_trimmed_unsettled_total": "0x",
    'relay_log_sync_seconds_bucket{le="0.01"}': "0+100x",
    'relay_log_sync_seconds_bucket{le="1.0"}': "0+100x",
    'relay_log_sync_seconds_bucket{le="+Inf"}': "0+100x",
    "relay_store_failures_total": "0x",
    "relay_store_went_back_total": "0x",
    "relay_store_lost_events_total": "0x",
    "relay_store_connections_busy": "2x",
    "relay_store_connections_capacity": "40x",
    "relay_projection_lag_events": "10x",
    'relay_queue_size{queue="partitions"}': "3x",
    'relay_queue_capacity{queue="partitions"}': "128x",
    'relay_queue_size{queue="api-connections"}': "300x",
    'relay_queue_capacity{queue="api-connections"}': "3000x",
    'relay_queue_size{queue="accounts"}': "250000x",
    'relay_queue_capacity{queue="accounts"}': "250000x",
    'relay_identity_lookups_total{outcome="found"}': "0+100x",
    'relay_identity_lookups_total{outcome="did-unavailable"}': "0+1x",
    'relay_hub_lag_seconds_bucket{le="0.01"}': "0+600x",
    'relay_hub_lag_seconds_bucket{le="1.0"}': "0+600x",
    'relay_hub_lag_seconds_bucket{le="+Inf"}': "0+600x",
    "relay_consumers_worst_lag_events": "100x",
    "relay_consumers_refused_total": "0x",
}
# An edge has neither hosts nor a SQL projection of events.
EDGE: Series = {
    'relay_build_info{mode="relay"}': "",
    'relay_build_info{mode="edge"}': "1x",
    "relay_edge_connected": "1x",
    "relay_hosts_connected": "0x",
    **{f'relay_hosts{{status="{status}"}}': "" for status in ("active", "offline", "banned")},
    'relay_events_received_total{kind="commit"}': "",
}
STANDBY: Series = {"relay_cluster_term": "7x", "relay_cluster_connected": "1x"}
SYNC, LAG = "relay_log_sync_seconds_bucket", "relay_hub_lag_seconds_bucket"
LOGGED, DROPPED = 'relay_events_logged_total{kind="commit"}', "relay_events_dropped_total"
UNAVAILABLE = 'relay_identity_lookups_total{outcome="did-unavailable"}'
PLACES, LANES = 'relay_queue_size{queue="api-connections"}', 'relay_queue_size{queue="partitions"}'
OFFLINE = 'relay_hosts{status="offline"}'
# A counter that one event moved, a minute before the alerts are looked at; and a process of the same age that has it.
ONCE = "0x178 1x"
BEFORE_THE_FIRST_SCRAPE = {"process_start_time_seconds": "-900000x178 10740x"}
ANEW = "1x"

# What differs from WELL for each case: those in which the alert fires, and those that come near and are none.
Cases = dict[str, tuple[list[Series], list[Series]]]
CASES: Cases = {
    "RelayDown": ([{"up": "0x"}], [{"up": "1x100 0 1x"}]),
    "RelayRestarting": (
        [{"process_start_time_seconds": "1000+60x"}],
        [{"process_start_time_seconds": "1000x150 2000x10 3000x"}],
    ),
    "RelayUnhealthy": ([{"relay_healthy": "0x"}, EDGE | {"relay_healthy": "0x"}], [{"relay_healthy": "1x178 0 1x"}]),
    "RelayNoEvents": (
        [{LOGGED: "700x"}, EDGE | {LOGGED: "700x"}, {LOGGED: "0x"}],
        [{LOGGED: "700x", "relay_hosts_connected": "0x"}, {LOGGED: "0x170 0+1x"}],
    ),
    "RelayNoHosts": (
        [
            {"relay_hosts_connected": "0x"},
            {"relay_hosts_connected": "0x", 'relay_hosts{status="active"}': "0x", OFFLINE: "110x"},
        ],
        [
            {"relay_hosts_connected": "1x"},
            {"relay_hosts_connected": "0x", 'relay_hosts{status="active"}': "0x", OFFLINE: "0x"},
            EDGE,
        ],
    ),
    "RelayEdgeCutOff": (
        [EDGE | {"relay_edge_connected": "0x"}, EDGE | {"relay_edge_connected": "1x100 0x"}],
        [EDGE, EDGE | {"relay_edge_connected": "1x178 0 1x"}, {"relay_edge_connected": "0x"}],
    ),
    "RelayClusterWithoutActive": (
        [STANDBY],
        [
            {"relay_cluster_term": "7x", "relay_cluster_active": "1x"},
            STANDBY | {"relay_cluster_active": "1x178 0 1x"},
        ],
    ),
    "RelayClusterCutOff": (
        [STANDBY | {"relay_cluster_connected": "0x"}],
        [STANDBY, {"relay_cluster_connected": "0x"}, STANDBY | {"relay_cluster_connected": "1x178 0 1x"}],
    ),
    "RelayManyHostsOffline": ([{OFFLINE: "300x"}], [{OFFLINE: "90x"}, {OFFLINE: "10x150 300x"}]),
    "RelayLogWriteFailing": (
        [{"relay_log_failures_total": "0+1x"}, {"relay_log_failures_total": ONCE}],
        [{"relay_log_failures_total": "7x"}],
    ),
    "RelayLogDamaged": (
        [
            {"relay_log_damage_total": "0x150 1x"},
            {"relay_log_damage_total": ANEW, **BEFORE_THE_FIRST_SCRAPE},
        ],
        [{"relay_log_damage_total": "5x"}],
    ),
    "RelayLogTrimmedEarly": (
        [{"relay_log_trimmed_early_total": "0x150 1x"}],
        [{"relay_log_trimmed_early_total": "5x"}],
    ),
    "RelayLogTrimmedUnsettled": (
        [{"relay_log_trimmed_unsettled_total": "0x150 1x"}],
        [{"relay_log_trimmed_unsettled_total": "5x"}],
    ),
    "RelayLogSyncSlow": ([{f'{SYNC}{{le="0.01"}}': "0x"}], [{f'{SYNC}{{le="0.01"}}': "0+99.5x"}]),
    "RelayBackupMissing": (
        [{"relay_backup_last_success_timestamp_seconds": "-200000x"}],
        [{"relay_backup_last_success_timestamp_seconds": "-100000x"}],
    ),
    "RelayDatabaseAway": (
        [{"relay_store_failures_total": "0+9x"}],
        [{"relay_store_failures_total": "9x"}, {"relay_store_failures_total": ONCE}],
    ),
    "RelayDatabaseWentBack": (
        [{"relay_store_went_back_total": "0x150 1x"}],
        [{"relay_store_went_back_total": "5x"}],
    ),
    "RelayDatabaseLostEvents": (
        [
            {"relay_store_lost_events_total": "0x150 700x"},
            {"relay_store_lost_events_total": ANEW, **BEFORE_THE_FIRST_SCRAPE},
        ],
        [{"relay_store_lost_events_total": "700x"}],
    ),
    "RelayDatabasePoolFull": (
        [{"relay_store_connections_busy": "40x"}],
        [{"relay_store_connections_busy": "36x"}, {"relay_store_connections_busy": "2x175 40x"}],
    ),
    "RelayProjectionBehind": (
        [{"relay_projection_lag_events": "200000x"}],
        [{"relay_projection_lag_events": "90000x"}],
    ),
    "RelayQueueFull": ([{LANES: "128x"}], [{LANES: "110x"}, {PLACES: "3000x"}]),
    "RelayConnectionsFull": ([{PLACES: "2900x"}], [{PLACES: "2600x"}, {PLACES: "300x176 3000x"}, {LANES: "128x"}]),
    "RelayDroppingMany": (
        [{f'{DROPPED}{{reason="signature-invalid"}}': "0+900x"}],
        [{f'{DROPPED}{{reason="signature-invalid"}}': "0+200x"}, {f'{DROPPED}{{reason="rev-old"}}': "0+5000x"}],
    ),
    "RelayInternalErrors": (
        [
            {f'{DROPPED}{{reason="internal-error"}}': ONCE},
            {f'{DROPPED}{{reason="internal-error"}}': ANEW, **BEFORE_THE_FIRST_SCRAPE},
        ],
        [{f'{DROPPED}{{reason="internal-error"}}': "3x"}],
    ),
    "RelayPoison": (
        [
            {f'{DROPPED}{{reason="poison"}}': ONCE},
            {f'{DROPPED}{{reason="poison"}}': ANEW, **BEFORE_THE_FIRST_SCRAPE},
        ],
        [{f'{DROPPED}{{reason="poison"}}': "3x"}, {f'{DROPPED}{{reason="signature-invalid"}}': ONCE}],
    ),
    "RelayVerifiersFailing": (
        [{'relay_verifier_restarts_total{cause="ended"}': "0+1x"}],
        [{'relay_verifier_restarts_total{cause="ended"}': "0x175 1 2x"}],
    ),
    "RelayIdentityUnavailable": ([{UNAVAILABLE: "0+900x"}], [{UNAVAILABLE: "0+80x"}]),
    "RelayHubSlow": ([{f'{LAG}{{le="0.01"}}': "0x"}], [{f'{LAG}{{le="0.01"}}': "0+597x"}]),
    "RelayConsumersBehind": (
        [{"relay_consumers_worst_lag_events": "2000000x"}],
        [{"relay_consumers_worst_lag_events": "100x160 2000000x"}],
    ),
    "RelayConsumersRefused": ([{"relay_consumers_refused_total": "0+60x"}], [{"relay_consumers_refused_total": ONCE}]),
    "RelayMemoryHigh": (
        [{"process_resident_memory_bytes": "3900000000x"}],
        [{"process_resident_memory_bytes": "1900000000x"}],
    ),
    "RelayFilesHigh": ([{"process_open_fds": "60000x"}], [{"process_open_fds": "50000x"}]),
}


def series(of: Series, instance: str) -> list[dict[str, str]]:
    """The series as promtool takes them, with the labels that a scrape gives."""
    return [
        {
            "series": re.sub(r"^(\w+)(?:{(.*)})?$", rf'\1{{job="relay",instance="{instance}",\2}}', name),
            "values": f"{value}{MINUTES}",
        }
        for name, value in of.items()
        if value
    ]


def check(changed: Series, fires: list[str], silent: list[str]) -> dict[str, object]:
    """One test of `promtool test rules`: which alerts fire for the relay that is like WELL but for `changed`."""
    firing = 'count by (alertname, instance) (ALERTS{{alertstate="firing",alertname="{}"}})'
    return {
        "interval": "1m",
        "input_series": [*series(WELL | changed, "this:2471"), *series(WELL, "other:2471")],
        "promql_expr_test": [
            {
                "expr": firing.format(alert),
                "eval_time": AT,
                "exp_samples": [{"labels": f'{{alertname="{alert}",instance="this:2471"}}', "value": 1}]
                if alert in fires
                else [],
            }
            for alert in [*fires, *silent]
        ],
    }


def judge(folder: Path, alerts: Iterable[str], tests: list[dict[str, object]]) -> None:
    """Have promtool run tests of these alerts alone, which is quicker."""
    (folder / "rules.yml").write_text(HEAD + "".join(ALERTS[alert] for alert in alerts))
    # JSON is YAML.
    asked = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yml").write_text(json.dumps(asked))
    command: list[str | Path] = [tool("promtool") or "", "test", "rules", folder / "tests.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


with_promtool = pytest.mark.skipif(
    not tool("promtool"), reason="promtool is not installed: `make test-setup` does that"
)


def test_every_alert_has_cases() -> None:
    assert list(CASES) == list(ALERTS)
    assert all(fires and silent for fires, silent in CASES.values())


@with_promtool
@pytest.mark.parametrize("kind", [{}, EDGE], ids=["relay", "edge"])
def test_health_is_quiet(tmp_path: Path, kind: Series) -> None:
    judge(tmp_path, ALERTS, [check(kind, [], list(ALERTS))])


@with_promtool
@pytest.mark.parametrize("alert", ALERTS)
def test_the_alert_fires_when_it_is_due_and_not_before(tmp_path: Path, alert: str) -> None:
    fires, silent = CASES[alert]
    tests = [check(changed, [alert], []) for changed in fires]
    judge(tmp_path, [alert], tests + [check(changed, [], [alert]) for changed in silent])
