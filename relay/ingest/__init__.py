"""Everything between a decoded frame and the log: parking, the gate, verification, verdicts.

Fed by `upstream` through `Intake.put`; hands accepted events to `stream.Sequencer`. Must not know of sockets,
of HTTP routes or of who consumes the firehose.
"""
