"""Options of indigo's command line, each another way to write a setting: a unit that has them goes on working.

Given to `serve`, `pull-hosts` and `relay` itself, and shown in no help: settings are read from the environment. Loads
click alone, as the command line does. Must not know what a setting means.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

ROOT = {
    "admin-password": "RELAY_ADMIN_PASSWORD",
    "plc-host": "RELAY_PLC_HOST",
    "log-level": "RELAY_LOG_LEVEL",
}
PULL_HOSTS = {
    "db-url": "DATABASE_URL",
    "default-account-limit": "RELAY_DEFAULT_ACCOUNT_LIMIT",
    "trusted-domains": "RELAY_TRUSTED_DOMAINS",
}
SERVE = PULL_HOSTS | {
    "max-db-conn": "MAX_DB_CONNECTIONS",
    "bind": "RELAY_API_BIND",
    "metrics-listen": "RELAY_METRICS_LISTEN",
    "persist-dir": "RELAY_PERSIST_DIR",
    "replay-window": "RELAY_REPLAY_WINDOW",
    "host-concurrency": "RELAY_HOST_CONCURRENCY",
    "new-hosts-per-day-limit": "RELAY_NEW_HOSTS_PER_DAY_LIMIT",
    "ident-cache-size": "RELAY_IDENT_CACHE_SIZE",
    "initial-seq-number": "RELAY_INITIAL_SEQ_NUMBER",
    "sibling-relays": "RELAY_SIBLING_RELAYS",
    "account-limit-alert-threshold": "RELAY_ACCOUNT_LIMIT_ALERT_THRESHOLD",
    "account-limit-alert-interval": "RELAY_ACCOUNT_LIMIT_ALERT_INTERVAL",
    "account-limit-alert-repeat-interval": "RELAY_ACCOUNT_LIMIT_ALERT_REPEAT_INTERVAL",
    "account-limit-alert-dashboard-url": "RELAY_ACCOUNT_LIMIT_ALERT_DASHBOARD_URL",
    # Without a use here, as docs/migrating-from-indigo.md says.
    "env": "ENVIRONMENT",
    "otel-exporter-otlp-endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "slack-alert-channel": "RELAY_SLACK_ALERT_CHANNEL",
    "slack-alert-token": "RELAY_SLACK_ALERT_TOKEN",
}
SWITCHES = {
    "disable-request-crawl": "RELAY_DISABLE_REQUEST_CRAWL",
    "allow-insecure-hosts": "RELAY_ALLOW_INSECURE_HOSTS",
    "lenient-sync-validation": "RELAY_LENIENT_SYNC_VALIDATION",
}
# Without a use here, and without a variable in indigo.
IGNORED = ("enable-db-tracing", "enable-jaeger-tracing", "enable-otel-tracing")


def indigo_options(
    settings: Mapping[str, str], switches: Mapping[str, str] | None = None, ignored: Iterable[str] = ()
) -> Callable[[F], F]:
    """Have a command take these options: each sets the variable beside it, which then wins over what is there.

    Those that are `ignored` are switches that set nothing.
    """
    words: dict[str, str | None] = {**(switches or {}), **dict.fromkeys(ignored)}

    def decorate(function: F) -> F:
        for option, variable in settings.items():
            function = _option(option, variable, multiple=True)(function)
        for option, switch in words.items():
            # `--switch` and, as Go writes it, `--switch=false`.
            function = _option(option, switch, is_flag=False, flag_value="true")(function)
        return function

    return decorate


@cache
def root_options() -> list[click.Parameter]:
    """Those that come before a command."""
    return click.command(indigo_options(ROOT)(lambda: None)).params


def _option(option: str, variable: str | None, **more: Any) -> Callable[[F], F]:
    def set_variable(_context: click.Context, _option: click.Parameter, value: str | Iterable[str] | None) -> None:
        if value and variable:
            os.environ[variable] = value if isinstance(value, str) else ",".join(value)

    # Eager: before what reads the environment.
    return click.option(f"--{option}", hidden=True, is_eager=True, expose_value=False, callback=set_variable, **more)
