-- The index on accounts' DIDs had a name of its own here, so that a database of indigo's had it twice.
CREATE UNIQUE INDEX IF NOT EXISTS idx_account_d_id ON account (did);
DROP INDEX IF EXISTS idx_account_did;
