"""Everything that speaks HTTP: XRPC queries, the firehose's WebSocket, the admin API, health and metrics.

Gets its parts from `app` in one dataclass. Must not know how events are verified, ordered or stored: it reads
through `store` and `hosts`, attaches consumers to `stream` and asks `admin` for changes.
"""
