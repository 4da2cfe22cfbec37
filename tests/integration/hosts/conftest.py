"""No name is looked up outside; `relay` has hosts over a real database and real sockets."""

from tests.support.fake_relay import loopback_only, pds, quick_retries, relay

__all__ = ["loopback_only", "pds", "quick_retries", "relay"]
