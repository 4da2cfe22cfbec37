"""An edge: a relay's events with their seqs, from one upstream relay to many consumers. Verifies nothing.

Built by `app` instead of the rooms that verify, which it imports nothing of. See docs/edge.md.
"""
