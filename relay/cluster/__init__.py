"""Several nodes, one relay: the log is replicated before it is published, and another node goes on when one is lost.

Loaded only where RELAY_CLUSTER is set. See docs/cluster.md.
"""
