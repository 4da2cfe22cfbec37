-- Accounts of which the relay knows that it missed something, to be fetched from their hosts. due_at is seconds since
-- the epoch; noted counts how often something was missed, so that what is noted meanwhile outlives what was fetched.
CREATE TABLE heal_account (
    host_id {{int}} NOT NULL,
    did text NOT NULL,
    reason text NOT NULL,
    due_at double precision NOT NULL,
    attempts {{int}} NOT NULL,
    noted {{int}} NOT NULL,
    PRIMARY KEY (did, host_id)
){{keyed}};
CREATE INDEX heal_account_due ON heal_account (host_id, due_at);

-- Hosts of which accounts unknown to the relay may have been missed: their lists are compared with its own.
CREATE TABLE heal_host (
    host_id {{int}} PRIMARY KEY,
    reason text NOT NULL,
    state text NOT NULL,
    again {{bool}} NOT NULL,
    cursor text NOT NULL,
    listed {{int}} NOT NULL,
    differing {{int}} NOT NULL,
    entered {{int}} NOT NULL,
    error text,
    due_at double precision NOT NULL,
    attempts {{int}} NOT NULL,
    noted_at double precision NOT NULL,
    ended_at double precision
);

-- What was missed before there was a queue of it.
INSERT INTO heal_account (host_id, did, reason, due_at, attempts, noted)
    SELECT a.host_id, a.did, 'desynchronized', 0, 0, 1 FROM repo_desynchronized d JOIN account a ON a.uid = d.uid
    WHERE a.status = 'active' AND a.upstream_status IN ('active', 'desynchronized') LIMIT 100000;
