-- What this relay keeps beside indigo's tables.

-- How far the projection of the log has come: one row.
CREATE TABLE relay_position (
    id {{int}} PRIMARY KEY CHECK (id = 1),
    position {{int}} NOT NULL,
    replay_from {{int}} NOT NULL
);

CREATE TABLE relay_setting (
    key text PRIMARY KEY,
    value text NOT NULL
);

-- Replay hides this account's commit, sync and identity records below before_seq.
CREATE TABLE log_suppression (
    uid {{int}} PRIMARY KEY,
    before_seq {{int}} NOT NULL
);

-- Repos of which commits were missed, and that no #sync has settled yet.
CREATE TABLE repo_desynchronized (
    uid {{int}} PRIMARY KEY
);

-- What was seen of a host, and the rate limits an admin gave it. Times are seconds since the epoch.
CREATE TABLE host_state (
    host_id {{int}} PRIMARY KEY,
    failures {{int}} NOT NULL DEFAULT 0,
    last_attempt_at double precision,
    last_connected_at double precision,
    last_event_at double precision,
    last_error text,
    last_error_at double precision,
    per_second {{int}},
    per_hour {{int}},
    per_day {{int}}
);

-- key_code is the curve's code byte and the compressed point; resolved_at is seconds since the epoch.
CREATE TABLE identity (
    did text PRIMARY KEY,
    pds text,
    key_code {{bytes}},
    handle text,
    resolved_at double precision NOT NULL,
    tombstone {{bool}} NOT NULL DEFAULT false
){{keyed}};

-- Lists that must not walk over a million accounts to find a few.
CREATE INDEX account_active ON account (uid) WHERE status = 'active' AND upstream_status = 'active';
CREATE INDEX account_takendown ON account (uid) WHERE status = 'takendown';
CREATE INDEX account_host_throttled ON account (host_id, uid) WHERE status = 'host-throttled';
