"""A conformance suite for any relay: fake hosts and a directory send it what the rules are about, and its answers are
watched from outside.

Called by `relay conform`. It tests relays of any make, so it must not know how this one works: of ours it imports
`relay.atproto` alone.
"""
