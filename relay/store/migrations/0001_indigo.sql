-- The tables of indigo's relay, column for column: an existing database of it is taken over as it is, and can be
-- given back.

CREATE TABLE IF NOT EXISTS host (
    id {{serial}},
    created_at {{time}},
    updated_at {{time}},
    hostname text NOT NULL,
    no_ssl {{bool}} DEFAULT false,
    account_limit {{int}},
    trusted {{bool}} DEFAULT false,
    status text DEFAULT 'active',
    last_seq {{int}} DEFAULT -1,
    account_count {{int}} DEFAULT 0,
    account_limit_alerts_silenced {{bool}} DEFAULT false,
    account_limit_alert_state text DEFAULT 'ok',
    account_limit_alert_sent_at {{time}}
);
CREATE UNIQUE INDEX IF NOT EXISTS idx_host_hostname ON host (hostname);

-- Databases from before its alerts lack these three.
ALTER TABLE host ADD COLUMN IF NOT EXISTS account_limit_alerts_silenced {{bool}} DEFAULT false;
ALTER TABLE host ADD COLUMN IF NOT EXISTS account_limit_alert_state text DEFAULT 'ok';
ALTER TABLE host ADD COLUMN IF NOT EXISTS account_limit_alert_sent_at {{time}};

CREATE TABLE IF NOT EXISTS account (
    uid {{serial}},
    did text NOT NULL,
    host_id {{int}} NOT NULL,
    status text NOT NULL DEFAULT 'active',
    upstream_status text NOT NULL DEFAULT 'active'
);
-- indigo's ORM makes d_id of DID. Under another name, a table with millions of accounts would have the index twice.
CREATE UNIQUE INDEX IF NOT EXISTS idx_account_d_id ON account (did);

CREATE TABLE IF NOT EXISTS account_repo (
    uid {{serial}},
    rev text NOT NULL,
    commit_cid text NOT NULL,
    commit_data_cid text NOT NULL
);

CREATE TABLE IF NOT EXISTS domain_bans (
    id {{serial}},
    created_at {{time}},
    domain text,
    CONSTRAINT uni_domain_bans_domain UNIQUE (domain)
);

CREATE TABLE IF NOT EXISTS log_file_refs (
    id {{serial}},
    created_at {{time}},
    updated_at {{time}},
    deleted_at {{time}},
    path text,
    archived {{bool}},
    seq_start {{int}}
);
CREATE INDEX IF NOT EXISTS idx_log_file_refs_deleted_at ON log_file_refs (deleted_at);
