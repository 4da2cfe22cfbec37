"""Everything about upstream hosts, around one object: `Host`. Which hosts there are, and one subscriber for each.

Hands decoded events to an `EventSink` that it is given. Must not know how events are judged, who consumes them, or of
HTTP routes.
"""
