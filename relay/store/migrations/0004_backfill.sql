-- Imports of the collection index from other relays: which were asked for, and how the last run of each ended.
CREATE TABLE collection_backfill_source (
    source text PRIMARY KEY,
    running {{bool}} NOT NULL,
    discover {{bool}} NOT NULL,
    error text,
    started_at double precision NOT NULL,
    ended_at double precision
){{keyed}};

-- Why a collection's import was given up.
ALTER TABLE collection_backfill ADD COLUMN IF NOT EXISTS error text;
