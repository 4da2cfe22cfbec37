-- What one account is said to have, so that neither its bound nor its check looks at every collection of the network.
CREATE INDEX collection_repo_uid ON collection_repo (uid, collection_id);

-- How many collections that nobody had seen before each host's accounts named on its latest day, in days since 1970.
CREATE TABLE collection_host (
    host_id {{int}} PRIMARY KEY,
    day {{int}} NOT NULL,
    names {{int}} NOT NULL
){{keyed}};
