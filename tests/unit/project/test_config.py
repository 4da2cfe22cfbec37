"""Settings: values, aliases, errors that name the variable, secrets kept out, and the table of docs/reference.md."""

from pathlib import Path

import pytest

from relay.config import OPTIONS, Settings, gone_variables, setting_lines, unknown_variables
from relay.kit.env_file import read_env_file
from relay.kit.errors import ConfigError
from relay.kit.values import Bind, parse_bind, parse_bool, parse_duration, parse_size

REFERENCE = Path(__file__).parents[3] / "docs" / "reference.md"
ENV_EXAMPLE = Path(__file__).parents[3] / "conf" / "relay.env.example"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("72h", 259200),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("0", 0),
        ("3d", 259200),
        ("1.5s", 1.5),
        (".5h", 1800),
        ("2.s", 2),
        ("1us", 1e-6),
        ("1\N{MICRO SIGN}s", 1e-6),
        ("1ns", 1e-9),
        ("72h0m0.500s", 259200.5),
    ],
)
def test_duration_is_read_as_go_writes_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "72", "h", "-1h", "1h 30m", "1x"])
def test_bad_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_size_bind_and_bool() -> None:
    assert (parse_size("512M"), parse_size("20GiB"), parse_size("7")) == (512 << 20, 20 << 30, 7)
    assert parse_bind(":2470") == Bind("", 2470)
    assert parse_bind("[::1]:1") == Bind("::1", 1)
    assert parse_bool("true") and not parse_bool("0")
    for parse, bad in [(parse_size, "1X"), (parse_bind, "2470"), (parse_bind, ":70000"), (parse_bool, "maybe")]:
        with pytest.raises(ValueError, match="not"):
            parse(bad)


def test_settings_take_indigos_other_names_and_the_main_name_wins() -> None:
    settings = Settings.from_environment({"ATP_PLC_HOST": "http://localhost:2582/", "RELAY_ADMIN_KEY": "a, b"})
    assert settings.plc_hosts == ("http://localhost:2582",)
    assert settings.redacted()["RELAY_PLC_HOST"] == "http://localhost:2582"
    assert settings.admin_passwords == ("a", "b")
    both = {"RELAY_PLC_HOST": "https://one.example", "ATP_PLC_HOST": "https://two.example"}
    assert Settings.from_environment(both).plc_hosts == ("https://one.example",)


def test_of_the_names_of_the_log_level_the_one_that_indigo_heeds_wins() -> None:
    names = ("RELAY_LOG_LEVEL", "GO_LOG_LEVEL", "LOG_LEVEL")
    for first, winner in enumerate(names):
        environment = {name: "debug" if name == winner else "error" for name in names[first:]}
        assert Settings.from_environment(environment).log_level == "debug", winner


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"RELAY_REPLAY_WINDOW": ""}).replay_window == 72 * 3600


def test_a_bad_value_names_the_variable_but_never_a_secret() -> None:
    with pytest.raises(ConfigError, match=r"RELAY_REPLAY_WINDOW='soon'.*duration"):
        Settings.from_environment({"RELAY_REPLAY_WINDOW": "soon"})
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"DATABASE_URL": "mysql://user:hunter2@db/relay"})
    assert "hunter2" not in str(caught.value)


def test_what_differs_from_the_defaults_is_shown_as_an_operator_writes_it() -> None:
    environment = {
        "RELAY_API_BIND": "[::1]:2470",
        "RELAY_TRUSTED_DOMAINS": "*.a.example,b.example",
        "LOG_LEVEL": "info",
    }
    changed = Settings.from_environment({**environment, "RELAY_ADMIN_PASSWORD": "hunter2"}).changed()
    assert changed == {"RELAY_API_BIND": "[::1]:2470", "RELAY_TRUSTED_DOMAINS": "*.a.example,b.example"}


def test_secrets_are_redacted_on_print() -> None:
    shown = Settings.from_environment({"RELAY_ADMIN_PASSWORD": "hunter2", "DATABASE_URL": "postgres://u:pw@db/r"})
    assert "hunter2" not in str(shown.redacted())
    assert ":pw@" not in str(shown.redacted())


def test_unknown_relay_variables_are_found_and_indigos_are_not() -> None:
    assert unknown_variables({"RELAY_TYPO": "1", "RELAY_HOST_CONCURRENCY": "40", "PATH": "x"}) == ["RELAY_TYPO"]


def test_a_setting_that_is_gone_is_said_and_not_called_unknown() -> None:
    environment = {"RELAY_LOG_SYNC": "interval", "RELAY_LOG_LEVEL": "info"}
    assert unknown_variables(environment) == []
    assert [name for name, _ in gone_variables(environment)] == ["RELAY_LOG_SYNC"]
    assert gone_variables({}) == []


def test_the_reference_lists_every_setting() -> None:
    table = REFERENCE.read_text().split("<!-- settings -->")[1].split("<!-- /settings -->")[0].strip()
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in setting_lines()]
    assert table.splitlines() == ["| variable | default | meaning |", "|---|---|---|", *rows]


def test_example_env_file_has_every_setting_with_its_default_and_starts() -> None:
    said = {}
    for paragraph in ENV_EXAMPLE.read_text().split("\n\n")[1:]:
        *comment, line = paragraph.strip().splitlines()
        name, _, default = line.removeprefix("#").partition("=")
        said[name] = (default, " ".join(one.removeprefix("# ") for one in comment).rstrip("."))
    assert {name: said[name] for name, _, _ in setting_lines()} == {
        name: (default, text) for name, default, text in setting_lines()
    }
    assert said.keys() == {name for name, _, _ in setting_lines()} | OPTIONS
    Settings.from_environment(read_env_file(ENV_EXAMPLE))


def test_alerts_of_account_limits_take_indigos_names_and_the_webhook_is_secret() -> None:
    settings = Settings.from_environment(
        {
            "RELAY_ACCOUNT_LIMIT_ALERT_THRESHOLD": "0.9",
            "RELAY_ALERT_DASHBOARD_URL": "https://relay.example.com/dash/",
            "RELAY_ACCOUNT_LIMIT_ALERT_WEBHOOK_URL": "https://hooks.example.com/services/T0/hunter2",
        }
    )
    assert (settings.alert_threshold, settings.alert_interval, settings.alert_repeat_interval) == (0.9, 300, 21600)
    assert settings.alert_dashboard_url == "https://relay.example.com/dash/"
    assert "hunter2" not in str(settings.redacted())
    for name, bad in [("THRESHOLD", "0"), ("THRESHOLD", "1.1"), ("INTERVAL", "0"), ("DASHBOARD_URL", "dash")]:
        with pytest.raises(ConfigError, match=name):
            Settings.from_environment({f"RELAY_ACCOUNT_LIMIT_ALERT_{name}": bad})
    with pytest.raises(ConfigError) as caught:
        Settings.from_environment({"RELAY_ACCOUNT_LIMIT_ALERT_WEBHOOK_URL": "hunter2"})
    assert "hunter2" not in str(caught.value)
