-- Which repos have records of which collection, as listReposByCollection lists them.

CREATE TABLE collection (
    id {{serial}},
    nsid text NOT NULL
);
CREATE UNIQUE INDEX collection_nsid ON collection (nsid);

CREATE TABLE collection_repo (
    collection_id {{int}} NOT NULL,
    uid {{int}} NOT NULL,
    PRIMARY KEY (collection_id, uid)
){{keyed}};

-- Pairs that the account's host has to be asked about. Collection 0 stands for all of the account.
CREATE TABLE collection_check (
    uid {{int}} NOT NULL,
    collection_id {{int}} NOT NULL,
    PRIMARY KEY (uid, collection_id)
){{keyed}};

-- How far another relay's lists have been imported.
CREATE TABLE collection_backfill (
    source text NOT NULL,
    nsid text NOT NULL,
    cursor text NOT NULL DEFAULT '',
    listed {{int}} NOT NULL DEFAULT 0,
    taken {{int}} NOT NULL DEFAULT 0,
    done {{bool}} NOT NULL DEFAULT false,
    PRIMARY KEY (source, nsid)
){{keyed}};
