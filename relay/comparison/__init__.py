"""Compares what another relay has with what ours has, from outside: both firehoses for some minutes, and both lists of
hosts.

Called by `relay compare`. Both are asked as any consumer would: it must not know how a relay works inside.
"""
