"""The ways out and the wire: the address guard, the guarded HTTP client, WebSocket framing and the client that dials.

Every outgoing connection of the relay starts here. It must not know of DIDs, hosts' states or consumers.
"""
