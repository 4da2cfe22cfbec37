"""Who a DID is: its document looked up, cached and kept, one lookup at a time, in fair queues.

`resolver.Resolver` is what the event path uses. It must not know of events or accounts.
"""
