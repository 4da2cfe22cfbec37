"""Who a DID is: its document looked up, cached and kept, and every outgoing request guarded.

`resolver.Resolver` is what the event path uses, `http.GuardedHttp` what every room uses that talks to a stranger.
"""
