"""From an event to a decision: the lanes, what a held event waits for, the gate, verification, accounts, moderation.

Fed by `hosts` through `Lanes.put`; hands accepted events to `stream.sequencer`. Must not know of sockets (but those of
its workers), routes or consumers.
"""
