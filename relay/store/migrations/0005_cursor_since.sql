-- A host's records at or below this seq of the log have upstream seqs from before its numbers started again.
ALTER TABLE host_state ADD COLUMN cursor_since {{int}} NOT NULL DEFAULT 0;
