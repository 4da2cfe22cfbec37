"""Every Prometheus instrument of the relay, grouped by the stage of the event path that moves it.

Used by all rooms but `atproto`; exported by `web.metrics`. Label sets are bounded: reasons and kinds come from
fixed lists, never from the network. Holds no logic.
"""

from prometheus_client import Counter, Gauge, Histogram

# upstream
EVENTS_RECEIVED = Counter("relay_events_received_total", "Events read from hosts", ["kind"])

# ingest
EVENTS_DROPPED = Counter("relay_events_dropped_total", "Events rejected, by reason", ["reason"])
QUEUE_SIZE = Gauge("relay_queue_size", "Items waiting in a bounded queue, cache or set", ["queue"])
QUEUE_CAPACITY = Gauge("relay_queue_capacity", "The bound of that queue, cache or set", ["queue"])
EVENTS_LENIENT = Counter("relay_events_lenient_total", "Events passed in lenient mode, by what was wrong", ["reason"])
STATUS_CHECKS = Counter("relay_status_checks_total", "getRepoStatus questions about inactive accounts", ["outcome"])
CHAIN_BREAKS = Counter("relay_chain_breaks_total", "Commits whose since or prevData did not continue the stored state")

# identity

# stream
EVENTS_LOGGED = Counter("relay_events_logged_total", "Events made durable and published", ["kind"])
LOG_SYNC_SECONDS = Histogram("relay_log_sync_seconds", "Time to write and sync one batch of the log")

# store
STORE_SECONDS = Histogram(
    "relay_store_seconds", "Time of one SQL transaction, waiting for a connection included", ["mode"]
)
STORE_FAILURES = Counter("relay_store_failures_total", "SQL transactions that failed because the database was away")
STORE_CONNECTIONS = Gauge("relay_store_connections", "Open database connections")
STORE_CONNECTIONS_BUSY = Gauge("relay_store_connections_busy", "Database connections in use")
STORE_CONNECTIONS_CAPACITY = Gauge("relay_store_connections_capacity", "Most database connections")

# web
CONSUMERS = Gauge("relay_consumers", "Connected firehose consumers")
