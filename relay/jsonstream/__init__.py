"""The stream that bots and feeds read: the firehose as filtered JSON, as Jetstream serves it.

Loaded only where `RELAY_JSON_STREAM` is on, by a relay and by an edge. A consumer is a position in the log here too:
what an event says as JSON is made once, when the first consumer wants it. Must not know of hosts, accounts or SQL.
"""
