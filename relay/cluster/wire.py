"""The words of the requests and answers between a node and its NATS process: what a node asks and is told.

Used on both sides, which send them as `kit.messages`. Must load neither gevent nor asyncio.
"""

from __future__ import annotations

# What a node asks: a number of its own, then one of these with its arguments. The answer is the number and a result.
# (APPEND, place of the last message, data) -> (APPENDED, place), (REFUSED,) when another message is the last
# (GET, place) -> (FOUND, data) or (NONE,)
# (ENDS,) -> (FOUND, first place, last place)
# (TIP, place): tell the others that there is a message; no answer
APPEND, GET, ENDS, TIP = "append", "get", "ends", "tip"
APPENDED, REFUSED, FOUND, NONE = "appended", "refused", "found", "none"
# To any: what went wrong.
AWAY = "away"
# Unasked for, with the number 0: (TIP, place), (CONNECTED, server), (CUT,)
CONNECTED, CUT = "connected", "cut"
