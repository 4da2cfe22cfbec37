"""Every Prometheus instrument of the relay, grouped by the stage of the event path that moves it.

Used by all rooms but `atproto`; exported by `web.metrics_server`. Label sets are bounded: reasons and kinds come from
fixed lists, never from the network. Holds no logic.
"""

from collections.abc import Callable
from typing import Any

from cachetools import Cache
from prometheus_client import Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

# upstream
EVENTS_RECEIVED = Counter("relay_events_received_total", "Events read from hosts", ["kind"])
HOSTS = Gauge("relay_hosts", "Known hosts, by status", ["status"])
HOSTS_CONNECTED = Gauge("relay_hosts_connected", "Hosts with an open connection")
HOSTS_NEAR_ACCOUNT_LIMIT = Gauge("relay_hosts_near_account_limit", "Hosts with 80 % of their account limit or more")
HOST_TRANSITIONS = Counter("relay_host_transitions_total", "Changes of a host's status, by cause", ["cause"])
HOST_SEQ_RESETS = Counter("relay_host_seq_resets_total", "Hosts whose sequence numbers started again")
HOST_THROTTLED_SECONDS = Counter(
    "relay_host_throttled_seconds_total",
    "Time that hosts waited for their own limits or their share of the CPU",
    ["tier"],
)
DIALS = Counter("relay_dials_total", "Attempts to connect to hosts, by outcome", ["outcome"])
CONNECTIONS_ENDED = Counter("relay_connections_ended_total", "Host connections that ended, by reason", ["reason"])
UPSTREAM_INFOS = Counter("relay_upstream_infos_total", "Info frames from hosts, by name", ["name"])
BACKFILL_ACCOUNTS = Counter(
    "relay_backfill_accounts_total", "Accounts listed by the source of a collection import, by outcome", ["outcome"]
)
BACKFILL_FAILURES = Counter(
    "relay_backfill_failures_total", "Pages of a collection import that failed and were asked for again"
)
COLLECTIONS_LEFT_OUT = Counter(
    "relay_collections_left_out_total",
    "Collections of accounts left out of the index, by whose bound was reached",
    ["bound"],
)
ALERTS_SENT = Counter(
    "relay_alerts_sent_total", "Alerts about account limits sent to the webhook, by outcome", ["outcome"]
)

# edge
EDGE_CONNECTED = Gauge("relay_edge_connected", "1 while an edge is connected to its upstream relay")
EDGE_PASSED_OVER = Counter(
    "relay_edge_passed_over_total", "Frames of the upstream relay that were not kept, by reason", ["reason"]
)
EDGE_GAPS = Counter("relay_edge_gaps_total", "Times that the upstream relay no longer had all that the edge lacked")
EDGE_HOSTS_NOTED = Gauge(
    "relay_edge_hosts_noted_timestamp_seconds", "When the upstream's hosts were last noted for a promotion; 0: never"
)

# cluster
CLUSTER_ACTIVE = Gauge("relay_cluster_active", "1 on the active node of a cluster")
CLUSTER_CONNECTED = Gauge("relay_cluster_connected", "1 while a node is connected to NATS")
CLUSTER_TERM = Gauge("relay_cluster_term", "The number of the term that is under way; it rises with each takeover")
CLUSTER_APPEND_SECONDS = Histogram(
    "relay_cluster_append_seconds",
    "Time until a batch was in the cluster's stream",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 15),
)
CLUSTER_APPEND_FAILURES = Counter("relay_cluster_append_failures_total", "Attempts to append that had no answer")

# ingest
EVENTS_DROPPED = Counter("relay_events_dropped_total", "Events rejected, by reason", ["reason"])
EVENTS_JUDGED = Counter("relay_events_judged_total", "Events judged, by kind and outcome", ["kind", "outcome"])
QUEUE_SIZE = Gauge("relay_queue_size", "Items in a bounded queue, cache or set", ["queue"])
QUEUE_CAPACITY = Gauge("relay_queue_capacity", "The bound of that queue, cache or set", ["queue"])
EVENT_STAGE_SECONDS = Histogram(
    "relay_event_stage_seconds",
    "Time that an event spends in a stage, measured for one event in 32",
    ["stage"],
    buckets=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60),
)
EVENTS_LENIENT = Counter("relay_events_lenient_total", "Events passed in lenient mode, by what was wrong", ["reason"])
EVENTS_DOWNGRADED = Counter(
    "relay_events_downgraded_total", "Events passed on as #sync of their signed commit, by what was wrong", ["reason"]
)
VERIFIERS = Gauge("relay_verifiers", "Worker processes that are ready to verify")
VERIFIER_BUSY_SECONDS = Counter(
    "relay_verifier_busy_seconds_total", "Time that a worker process spent verifying", ["worker"]
)
VERIFIER_RESTARTS = Counter("relay_verifier_restarts_total", "Worker processes that were replaced, by cause", ["cause"])
STATUS_CHECKS = Counter(
    "relay_status_checks_total",
    "Times that a host was asked for the status of an inactive account, by outcome",
    ["outcome"],
)
ACCOUNT_THROTTLED_SECONDS = Counter(
    "relay_account_throttled_seconds_total",
    "Time that accounts waited because they sent too many events that were invalid, #sync or changed their status",
)
MISSED = Counter(
    "relay_missed_total", "Dropped events whose accounts are fetched from their source, by reason", ["reason"]
)
CHAIN_BREAKS = Counter("relay_chain_breaks_total", "Commits whose since or prevData did not continue the stored state")

# healing
HEALS = Counter("relay_heals_total", "Accounts checked because something of them was missed, by outcome", ["outcome"])
HOST_HEALS = Counter(
    "relay_host_heals_total", "Hosts whose accounts were compared with the relay's, by outcome", ["outcome"]
)
HEAL_LISTED = Counter("relay_heal_listed_total", "Accounts listed by hosts that were compared, by outcome", ["outcome"])

# identity
IDENTITY_READS = Counter("relay_identity_reads_total", "Identities resolved, by where they came from", ["source"])
DIRECTORY_UP = Gauge("relay_plc_directory_up", "1 while this address of the PLC directory answers", ["address"])
IDENTITY_LOOKUPS = Counter("relay_identity_lookups_total", "DIDs looked up on the network, by outcome", ["outcome"])
IDENTITY_LOOKUPS_IN_FLIGHT = Gauge("relay_identity_lookups_in_flight", "DIDs that are being looked up now")
IDENTITY_LOOKUP_SECONDS = Histogram("relay_identity_lookup_seconds", "Time of one lookup, with waiting and retries")
IDENTITY_REFRESHES_LIMITED = Counter(
    "relay_identity_refreshes_limited_total", "Lookups past the cache that were not granted, by limit", ["limit"]
)

# stream
EVENTS_LOGGED = Counter("relay_events_logged_total", "Events made durable and published", ["kind"])
LOG_SYNC_SECONDS = Histogram("relay_log_sync_seconds", "Time of one fdatasync of the log")
LOG_BATCH_EVENTS = Histogram(
    "relay_log_batch_events", "Events made durable together", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
LOG_FAILURES = Counter("relay_log_failures_total", "Writes of the log that failed and were tried again")
LOG_DAMAGE = Counter("relay_log_damage_total", "Damaged or missing stretches of the log that were found")
LOG_LOST_EVENTS = Counter("relay_log_lost_events_total", "Events of the log that can no longer be read")
LOG_TRIMMED_EARLY = Counter(
    "relay_log_trimmed_early_total", "Segments deleted within the replay window to make room on the disk"
)
LOG_TRIMMED_UNSETTLED = Counter(
    "relay_log_trimmed_unsettled_total", "Segments deleted although a host's cursor was still in them"
)
LOG_FIRST_SEQ = Gauge("relay_log_first_seq", "Oldest seq that can be replayed")
LOG_LAST_SEQ = Gauge("relay_log_last_seq", "Newest seq")
LOG_SEGMENTS = Gauge("relay_log_segments", "Segment files of the log")
LOG_BYTES = Gauge("relay_log_bytes", "Bytes in the segment files, as of the last trim")
SUPPRESSED_ACCOUNTS = Gauge("relay_suppressed_accounts", "Accounts whose past events are hidden from replay")
PROJECTION_LAG = Gauge("relay_projection_lag_events", "Events in the log whose state SQL does not have yet")
RECOVERY_REMAINING = Gauge(
    "relay_recovery_remaining_events", "Events of the log that have yet to be applied to an older database"
)

# store
STORE_SECONDS = Histogram("relay_store_seconds", "Time of one SQL transaction, with waiting for a connection", ["mode"])
STORE_FAILURES = Counter("relay_store_failures_total", "SQL transactions that failed because the database was away")
STORE_WENT_BACK = Counter(
    "relay_store_went_back_total",
    "Times that the database was found in an older state while the relay was running",
)
STORE_LOST_EVENTS = Counter(
    "relay_store_lost_events_total",
    "Maximum number of events that the database lacks and the log no longer has",
)
STORE_CONNECTIONS = Gauge("relay_store_connections", "Open database connections")
STORE_CONNECTIONS_BUSY = Gauge("relay_store_connections_busy", "Database connections in use")
STORE_CONNECTIONS_CAPACITY = Gauge("relay_store_connections_capacity", "Maximum number of database connections")

# web
CONSUMERS = Gauge("relay_consumers", "Connected firehose consumers")
CONSUMERS_WORST_LAG = Gauge("relay_consumers_worst_lag_events", "How many events the slowest consumer is behind")
CONSUMERS_REFUSED = Counter("relay_consumers_refused_total", "Firehose connections refused because of a limit")
CONSUMERS_ENDED = Counter("relay_consumers_ended_total", "Firehose connections that ended, by reason", ["reason"])
EVENTS_SENT = Counter("relay_events_sent_total", "Events sent, counted once for each consumer")
JSON_CONSUMERS = Gauge(
    "relay_json_consumers", "Connected consumers of the JSON stream, which relay_consumers also counts"
)
JSON_SKIPPED = Counter(
    "relay_json_skipped_total",
    "Messages left out because their event or record has no JSON form, or too long a one, by reason",
    ["reason"],
)
HTTP_REFUSED = Counter(
    "relay_http_refused_total",
    "Requests refused because they were malformed, too large, too slow or too many, by reason",
    ["reason"],
)
FORWARDS = Counter("relay_forwards_total", "Requests forwarded to sibling relays, by outcome", ["outcome"])

# process
BUILD = Info("relay_build", "Version, git revision, Python and libraries of this relay")
HEALTHY = Gauge("relay_healthy", "1 while `/_health` is well, 0 while it names a problem")
HUB_LAG_SECONDS = Histogram(
    "relay_hub_lag_seconds",
    "How late the hub wakes a sleeping greenlet, measured ten times a second",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
GREENLETS = Gauge("relay_greenlets", "Greenlets that are alive")
THREADS = Gauge("relay_threads", "Native threads")
GC_PAUSE_SECONDS = Histogram(
    "relay_gc_pause_seconds", "Time of one full garbage collection, during which nothing else runs"
)
MEMORY_PEAK = Gauge("relay_memory_peak_bytes", "Maximum resident memory since the start")
ALLOCATOR_BYTES = Gauge(
    "relay_allocator_bytes", "Memory held by the allocator, glibc's or jemalloc, by state", ["state"]
)


def show_bound(queue: str, size: Callable[[], float], capacity: float) -> None:
    """Show what is in a queue, cache or set, and its bound.

    `size` is called from the thread that answers scrapes: it may take the `len` of something, and change nothing.
    """
    QUEUE_SIZE.labels(queue).set_function(size)
    QUEUE_CAPACITY.labels(queue).set(capacity)


def kept(cache: Cache[Any, Any]) -> int:
    """How many items a cache has, for `show_bound`: its own `len` would also forget those that are too old."""
    return Cache.__len__(cache)


def readings(instrument: MetricWrapperBase, suffix: str = "") -> list[tuple[dict[str, str], float]]:
    """Labels and value of each sample whose name ends with `suffix`, as a scrape gives them."""
    return [
        (sample.labels, sample.value)
        for metric in instrument.collect()
        for sample in metric.samples
        if sample.name.endswith(suffix)
    ]


def total(instrument: MetricWrapperBase, suffix: str = "") -> float:
    """The sum of those samples."""
    return sum(value for _, value in readings(instrument, suffix))
