"""Every setting of the relay: one frozen dataclass, read once from the environment or an env file (`kit.env_file`).

Read by `commands` and handed to `app`; rooms get it or single values from there. Names, defaults and value forms are
indigo's where indigo has them, so that its `.env` starts this relay. The table in `docs/reference.md` is checked
against this module by a test. Must not know what any setting is used for beyond its help line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from relay.kit import settings
from relay.kit.settings import setting
from relay.kit.values import (
    Bind,
    one_of,
    parse_bind,
    parse_bool,
    parse_connections,
    parse_count,
    parse_count_or_auto,
    parse_database_url,
    parse_duration,
    parse_http_urls,
    parse_line,
    parse_list,
    parse_networks,
    parse_optional_http_url,
    parse_optional_page_url,
    parse_optional_path,
    parse_places,
    parse_positive_duration,
    parse_seq,
    parse_share,
    parse_size,
    parse_size_or_auto,
)


@dataclass(frozen=True)
class Settings:
    """The relay's settings. Durations are seconds, sizes are bytes."""

    mode: str = setting(
        "RELAY_MODE",
        "relay",
        one_of("relay", "edge"),
        "relay: crawl hosts and verify their events; edge: pass on what another relay has verified",
    )
    edge_upstream: str = setting(
        "RELAY_EDGE_UPSTREAM",
        "",
        parse_optional_http_url,
        "Relay that an edge takes its events from, e.g. https://relay.example.com",
    )
    edge_backfill: bool = setting(
        "RELAY_EDGE_BACKFILL",
        "false",
        parse_bool,
        "Fill an edge's empty log with everything its upstream can replay, instead of starting live",
    )
    cluster: tuple[str, ...] = setting(
        "RELAY_CLUSTER", "", parse_list, "NATS servers that the nodes of a cluster share, comma-separated", secret=True
    )
    cluster_node: str = setting("RELAY_CLUSTER_NODE", "", str, "Name of this node; when unset, the machine's name")
    admin_passwords: tuple[str, ...] = setting(
        "RELAY_ADMIN_PASSWORD",
        "",
        parse_list,
        "Passwords of the admin API, comma-separated; when unset, a random one is logged at start",
        also=("RELAY_ADMIN_KEY",),
        secret=True,
    )
    plc_hosts: tuple[str, ...] = setting(
        "RELAY_PLC_HOST",
        "https://plc.directory",
        parse_http_urls,
        "PLC directories that resolve did:plc, comma-separated, tried in this order",
        also=("ATP_PLC_HOST",),
    )
    log_level: str = setting(
        "LOG_LEVEL",
        "info",
        one_of("debug", "info", "warn", "warning", "error"),
        "Least severe level that is logged",
        over=("RELAY_LOG_LEVEL", "GO_LOG_LEVEL"),
    )
    log_format: str = setting("RELAY_LOG_FORMAT", "text", one_of("text", "json"), "Format of log lines: text or json")
    database_url: str = setting(
        "DATABASE_URL",
        "sqlite://data/relay/relay.sqlite",
        parse_database_url,
        "Database of hosts, accounts and bans",
        secret=True,
    )
    max_db_connections: int = setting(
        "MAX_DB_CONNECTIONS",
        "40",
        parse_connections,
        "Maximum number of connections to PostgreSQL",
        also=("MAX_METADB_CONNECTIONS",),
    )
    api_bind: Bind = setting(
        "RELAY_API_BIND",
        "127.0.0.1:2470",
        parse_bind,
        "Address of the API and the firehose",
        also=("RELAY_API_LISTEN",),
    )
    metrics_bind: Bind = setting(
        "RELAY_METRICS_LISTEN", "127.0.0.1:2471", parse_bind, "Address of the Prometheus metrics"
    )
    persist_dir: Path = setting(
        "RELAY_PERSIST_DIR", "data/relay/persist", Path, "Folder of the segment log", also=("RELAY_PERSISTER_DIR",)
    )
    replay_window: float = setting(
        "RELAY_REPLAY_WINDOW",
        "72h",
        parse_duration,
        "How long events can be replayed",
        also=("RELAY_EVENT_PLAYBACK_TTL",),
    )
    persist_max_bytes: int = setting(
        "RELAY_PERSIST_MAX_BYTES",
        "0",
        parse_size,
        "Maximum size of the segment log, kept by deleting the oldest events early; 0: no maximum",
    )
    persist_min_free: int | None = setting(
        "RELAY_PERSIST_MIN_FREE",
        "auto",
        parse_size_or_auto,
        "Bytes to keep free on the log's disk by deleting the oldest events; 0: none; auto: 5 % or 2 GiB, the smaller",
    )
    initial_seq: int = setting(
        "RELAY_INITIAL_SEQ_NUMBER",
        "1",
        parse_seq,
        "Lowest sequence number to give out; a log that is past it goes on where it is",
    )
    default_account_limit: int = setting(
        "RELAY_DEFAULT_ACCOUNT_LIMIT",
        "100",
        parse_count,
        "Number of accounts that a new host may have",
        also=("RELAY_DEFAULT_REPO_LIMIT",),
    )
    new_hosts_per_day: int = setting(
        "RELAY_NEW_HOSTS_PER_DAY_LIMIT",
        "50",
        parse_count,
        "Number of new hosts that requestCrawl may add in 24 hours, until an admin sets another",
    )
    trusted_domains: tuple[str, ...] = setting(
        "RELAY_TRUSTED_DOMAINS",
        "*.host.bsky.network",
        parse_list,
        "Domains whose hosts get the high limits",
    )
    disable_request_crawl: bool = setting(
        "RELAY_DISABLE_REQUEST_CRAWL",
        "false",
        parse_bool,
        "Refuse public requestCrawl, until an admin opens it",
    )
    allow_insecure_hosts: bool = setting(
        "RELAY_ALLOW_INSECURE_HOSTS",
        "false",
        parse_bool,
        "Allow hosts with plain http, localhost and private addresses",
    )
    lenient_sync_validation: bool = setting(
        "RELAY_LENIENT_SYNC_VALIDATION",
        "false",
        parse_bool,
        "Pass on commits that lack prevData or whose MST inversion fails, instead of sending #sync in their place",
    )
    validator_processes: int | None = setting(
        "RELAY_VALIDATOR_PROCESSES",
        "auto",
        parse_count_or_auto,
        "Worker processes that verify events; 0: the relay's own process does; auto: by the number of cores, on two of"
        " them one during a backlog",
    )
    ident_cache_size: int = setting(
        "RELAY_IDENT_CACHE_SIZE",
        "250000",
        parse_count,
        "Number of identities kept in memory",
        also=("RELAY_DID_CACHE_SIZE",),
    )
    sibling_relays: tuple[str, ...] = setting(
        "RELAY_SIBLING_RELAYS",
        "",
        parse_list,
        "Relays that admin actions and crawl requests are forwarded to",
    )
    max_consumers: int = setting("RELAY_MAX_CONSUMERS", "2000", parse_places, "Maximum number of firehose consumers")
    max_consumers_per_address: int = setting(
        "RELAY_MAX_CONSUMERS_PER_ADDRESS",
        "50",
        parse_count,
        "Maximum number of firehose consumers from one address",
    )
    consumer_stall: float = setting(
        "RELAY_CONSUMER_STALL",
        "30s",
        parse_duration,
        "How long a consumer may read nothing before it is disconnected",
    )
    firehose_deflate: bool = setting(
        "RELAY_FIREHOSE_DEFLATE",
        "false",
        parse_bool,
        "Compress the firehose for consumers that offer permessage-deflate: a third fewer bytes for much more CPU",
    )
    json_stream: bool = setting(
        "RELAY_JSON_STREAM",
        "false",
        parse_bool,
        "Also serve the events as filtered JSON at /subscribe, as Jetstream does",
    )
    json_zstd_dictionary: Path | None = setting(
        "RELAY_JSON_ZSTD_DICTIONARY",
        "",
        parse_optional_path,
        "File with the zstd dictionary that compresses the JSON stream for consumers that ask for compress=true",
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = setting(
        "RELAY_TRUSTED_PROXIES",
        "127.0.0.1,::1",
        parse_networks,
        "Addresses and networks of proxies whose X-Forwarded-For is trusted",
    )
    debug_memory: bool = setting(
        "RELAY_DEBUG_MEMORY",
        "false",
        parse_bool,
        "Trace allocations for `GET /admin/debug/memory`; slows everything down",
    )
    heal: str = setting(
        "RELAY_HEAL",
        "gaps",
        one_of("gaps", "all", "off"),
        "Fetch missed events from their source; gaps: those known to be missing; all: also compare every host once a"
        " week; off: never",
    )
    latency: str = setting(
        "RELAY_LATENCY",
        "normal",
        one_of("normal", "low"),
        "How hosts are read; normal: together, thirty times a second, which saves CPU; low: each as soon as something"
        " comes",
    )
    hosts: tuple[str, ...] = setting("RELAY_HOSTS", "", parse_list, "Hosts to subscribe to at start")
    host_idle_after: float = setting(
        "RELAY_HOST_IDLE_AFTER",
        "0",
        parse_duration,
        "Disconnect a host that has been quiet for this long; 0: never",
    )
    account_limit_autoscale: bool = setting(
        "RELAY_ACCOUNT_LIMIT_AUTOSCALE",
        "true",
        parse_bool,
        "Raise the account limit of a host in good standing automatically",
    )
    alert_webhook_url: str = setting(
        "RELAY_ACCOUNT_LIMIT_ALERT_WEBHOOK_URL",
        "",
        parse_optional_page_url,
        'Webhook that gets `{"text": "..."}` when hosts come near their account limit, e.g. in Slack',
        also=("RELAY_ALERT_WEBHOOK_URL",),
        secret=True,
    )
    alert_threshold: float = setting(
        "RELAY_ACCOUNT_LIMIT_ALERT_THRESHOLD",
        "0.80",
        parse_share,
        "Share of its account limit at which an alert about a host is sent",
    )
    alert_interval: float = setting(
        "RELAY_ACCOUNT_LIMIT_ALERT_INTERVAL",
        "5m",
        parse_positive_duration,
        "How often account limits are checked, give or take a fifth",
    )
    alert_repeat_interval: float = setting(
        "RELAY_ACCOUNT_LIMIT_ALERT_REPEAT_INTERVAL",
        "6h",
        parse_positive_duration,
        "How long until the alert about a host that is still near its limit is repeated",
    )
    alert_dashboard_url: str = setting(
        "RELAY_ACCOUNT_LIMIT_ALERT_DASHBOARD_URL",
        "",
        parse_optional_page_url,
        "Address of the dashboard that alerts refer to",
        also=("RELAY_ALERT_DASHBOARD_URL",),
    )
    operator_name: str = setting("RELAY_OPERATOR_NAME", "", parse_line, "Who runs this relay, for its front page")
    operator_contact: str = setting(
        "RELAY_OPERATOR_CONTACT",
        "",
        parse_line,
        "How to reach them, on the front page: an email address, a web address, or words",
    )
    terms_url: str = setting("RELAY_TERMS_URL", "", parse_optional_page_url, "Address of the terms of use")
    bootstrap_host: str = setting(
        "RELAY_BOOTSTRAP_HOST",
        "",
        parse_optional_http_url,
        "Relay whose hosts are added at a start without any known host, e.g. https://bsky.network",
    )
    skip_host_checks: bool = setting(
        "RELAY_SKIP_HOST_CHECKS",
        "false",
        parse_bool,
        "Add the hosts of another relay without asking each for describeServer",
    )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Settings from `environment`; an empty value counts as unset.

        Raises ConfigError naming the variable when a value cannot be read.
        """
        return cls(**settings.values_in(environment, cls))

    def changed(self) -> dict[str, str]:
        """What differs from the defaults, as text for the start log, without secrets."""
        defaults = Settings().redacted()
        return {name: text for name, text in self.redacted().items() if text != defaults[name]}

    def redacted(self) -> dict[str, str]:
        """Every setting as text, secrets replaced."""
        return settings.redacted(self)


# Settings that are gone, with what to tell an operator who still has them.
GONE = {"RELAY_LOG_SYNC": "every batch is synced before it is published. Remove it"}

# What indigo's relay reads and this one has no use for: known, so not worth a warning.
INDIGO_ONLY = frozenset({"RELAY_HOST_CONCURRENCY", "RELAY_CONCURRENCY_PER_PDS"})

# What options of `relay pull-hosts` are read from when they are not given.
OPTIONS = frozenset({"RELAY_HOST", "RELAY_PULL_HOSTS_BATCH_SIZE"})


def setting_lines() -> list[tuple[str, str, str]]:
    """(variable, default, help) of every setting, in order; for `--help` and for the test of `docs/reference.md`."""
    return settings.lines_of(Settings)


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """The `RELAY_*` names in `environment` that nothing reads, sorted."""
    known = settings.names_in(Settings) | INDIGO_ONLY | OPTIONS | GONE.keys()
    return sorted(name for name in environment if name.startswith("RELAY_") and name not in known)


def gone_variables(environment: Mapping[str, str]) -> list[tuple[str, str]]:
    """(name, what to do) of the settings in `environment` that a former release had, sorted."""
    return sorted((name, advice) for name, advice in GONE.items() if name in environment)
