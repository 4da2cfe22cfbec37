"""What the relay missed, fetched from its source: single accounts, and all of a host's.

It must not know how an event is judged: what it fetched goes the way of all events. Its SQL is in `store`.
"""
