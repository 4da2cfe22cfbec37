"""Each alert, evaluated by Prometheus itself: quiet while all is well, and found by its expression when it is not."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.tools import tool

ALERTS = (Path(__file__).parents[3] / "conf" / "alerts.rules.yml").read_text(encoding="utf-8")
EXPRESSIONS = dict(re.findall(r"- alert: (\w+)\n\s+expr: (.+)\n", ALERTS))
MINUTES = 240

# Values as promtool writes them: `5x240` stays, `0+6x240` rises by 6 a minute.
WELL = {
    'up{job="relay"}': "1x",
    'process_start_time_seconds{job="relay"}': "1000x",
    'process_resident_memory_bytes{job="relay"}': "500000000x",
    'process_open_fds{job="relay"}': "3000x",
    'process_max_fds{job="relay"}': "65536x",
    'relay_events_received_total{kind="commit"}': "0+6000x",
    'relay_events_logged_total{kind="commit"}': "0+5900x",
    'relay_events_dropped_total{reason="duplicate"}': "0+3000x",
    'relay_events_dropped_total{reason="signature-invalid"}': "0+6x",
    'relay_events_dropped_total{reason="internal-error"}': "0x",
    'relay_verifier_restarts_total{cause="ended"}': "0x",
    "relay_hosts_connected": "100x",
    'relay_hosts{status="active"}': "100x",
    'relay_hosts{status="offline"}': "10x",
    'relay_hosts{status="banned"}': "900x",
    "relay_log_failures_total": "0x",
    "relay_log_damage_total": "0x",
    'relay_log_sync_seconds_bucket{le="0.01"}': "0+100x",
    'relay_log_sync_seconds_bucket{le="1.0"}': "0+100x",
    'relay_log_sync_seconds_bucket{le="+Inf"}': "0+100x",
    "relay_store_failures_total": "0x",
    "relay_store_connections_busy": "2x",
    "relay_store_connections_capacity": "40x",
    "relay_projection_lag_events": "10x",
    'relay_queue_size{queue="partitions"}': "3x",
    'relay_queue_capacity{queue="partitions"}': "128x",
    'relay_identity_lookups_total{outcome="found"}': "0+100x",
    'relay_identity_lookups_total{outcome="did-unavailable"}': "0+1x",
    'relay_hub_lag_seconds_bucket{le="0.01"}': "0+600x",
    'relay_hub_lag_seconds_bucket{le="1.0"}': "0+600x",
    'relay_hub_lag_seconds_bucket{le="+Inf"}': "0+600x",
    "relay_consumers_worst_lag_events": "100x",
    "relay_consumers_refused_total": "0x",
}
# What differs when the alert is due.
ILL = {
    "RelayDown": {'up{job="relay"}': "0x"},
    "RelayRestarting": {'process_start_time_seconds{job="relay"}': "1000+60x"},
    "RelayNoEvents": {'relay_events_logged_total{kind="commit"}': "700x"},
    "RelayNoHosts": {"relay_hosts_connected": "0x"},
    "RelayManyHostsOffline": {'relay_hosts{status="offline"}': "300x"},
    "RelayLogWriteFailing": {"relay_log_failures_total": "0+1x"},
    "RelayLogDamaged": {"relay_log_damage_total": "0+1x"},
    "RelayLogSyncSlow": {'relay_log_sync_seconds_bucket{le="0.01"}': "0x"},
    "RelayDatabaseAway": {"relay_store_failures_total": "0+9x"},
    "RelayDatabasePoolFull": {"relay_store_connections_busy": "40x"},
    "RelayProjectionBehind": {"relay_projection_lag_events": "200000x"},
    "RelayQueueFull": {'relay_queue_size{queue="partitions"}': "128x"},
    "RelayDroppingMany": {'relay_events_dropped_total{reason="signature-invalid"}': "0+900x"},
    "RelayInternalErrors": {'relay_events_dropped_total{reason="internal-error"}': "0+1x"},
    "RelayVerifiersFailing": {'relay_verifier_restarts_total{cause="ended"}': "0+1x"},
    "RelayIdentityUnavailable": {'relay_identity_lookups_total{outcome="did-unavailable"}': "0+900x"},
    "RelayHubSlow": {'relay_hub_lag_seconds_bucket{le="0.01"}': "0x"},
    "RelayConsumersBehind": {"relay_consumers_worst_lag_events": "2000000x"},
    "RelayConsumersRefused": {"relay_consumers_refused_total": "0+60x"},
    "RelayMemoryHigh": {'process_resident_memory_bytes{job="relay"}': "3900000000x"},
    "RelayFilesHigh": {'process_open_fds{job="relay"}': "60000x"},
}


def check(series: dict[str, str], expressions: list[str], found: bool) -> dict[str, object]:
    """One test of `promtool test rules`: whether the expressions give anything after two hours."""
    return {
        "interval": "1m",
        "input_series": [{"series": name, "values": f"{value}{MINUTES}"} for name, value in series.items()],
        "promql_expr_test": [
            {
                "expr": f"count({expression}) > bool 0",
                "eval_time": "2h",
                "exp_samples": [{"labels": "{}", "value": 1}] if found else [],
            }
            for expression in expressions
        ],
    }


def test_every_alert_has_a_case() -> None:
    assert ILL.keys() == EXPRESSIONS.keys()


@pytest.mark.skipif(not tool("promtool"), reason="promtool is not installed: `make test-setup` does that")
def test_each_alert_is_told_from_health(tmp_path: Path) -> None:
    cases = [check(WELL, list(EXPRESSIONS.values()), found=False)]
    cases += [check(WELL | changed, [EXPRESSIONS[alert]], found=True) for alert, changed in ILL.items()]
    # JSON is YAML.
    (tmp_path / "tests.yml").write_text(json.dumps({"evaluation_interval": "1m", "tests": cases}))
    command: list[str | Path] = [tool("promtool") or "", "test", "rules", tmp_path / "tests.yml"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
