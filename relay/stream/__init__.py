"""From an accepted event to a consumer's position: the group commit, the sequencer, the tail, feeds, host cursors, and
the projector that carries what events change into SQL.

Fed by `ingest` through `Sequencer.submit`; `web` attaches consumers to `Firehose`. Must not know of hosts beyond an id,
or of sockets.
"""
