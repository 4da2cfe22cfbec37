"""Everything between the network's hosts and the intake: which hosts there are, and one subscriber for each.

Hands decoded events to `ingest.Intake`. Must not know how events are judged, who consumes them, or of HTTP routes.
"""
