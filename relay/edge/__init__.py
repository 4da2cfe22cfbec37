"""An edge: a relay's events with their seqs, from one upstream relay to many consumers. Verifies nothing.

Run by `edge_app` instead of the rooms that verify. See docs/edge.md.
"""
