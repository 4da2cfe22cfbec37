-- A host is looked up by its name in lower case and without a dot at the end. Rows that name it otherwise were written by
-- older versions of indigo or by hand. Those of one host become one: the one that is named so, or else the oldest.
CREATE TABLE host_spelling (
    id {{int}} PRIMARY KEY,
    kept {{int}} NOT NULL
);
INSERT INTO host_spelling (id, kept)
    SELECT h.id, one.kept FROM host h JOIN (
        SELECT lower(rtrim(hostname, '.')) AS name,
            coalesce(min(CASE WHEN hostname = lower(rtrim(hostname, '.')) THEN id END), min(id)) AS kept
        FROM host GROUP BY lower(rtrim(hostname, '.')) HAVING count(*) > 1
    ) one ON one.name = lower(rtrim(h.hostname, '.')) WHERE h.id <> one.kept;

UPDATE account SET host_id = (SELECT kept FROM host_spelling WHERE id = account.host_id)
    WHERE host_id IN (SELECT id FROM host_spelling);
UPDATE host SET
    account_count = coalesce(account_count, 0) + (SELECT coalesce(sum(other.account_count), 0)
        FROM host_spelling s JOIN host other ON other.id = s.id WHERE s.kept = host.id),
    last_seq = CASE WHEN coalesce(last_seq, -1) >= 0 THEN last_seq ELSE (SELECT max(coalesce(other.last_seq, -1))
        FROM host_spelling s JOIN host other ON other.id = s.id WHERE s.kept = host.id) END,
    status = CASE WHEN EXISTS (SELECT 1 FROM host_spelling s JOIN host other ON other.id = s.id
        WHERE s.kept = host.id AND other.status = 'banned') THEN 'banned' ELSE status END
    WHERE id IN (SELECT kept FROM host_spelling);
INSERT INTO heal_account (host_id, did, reason, due_at, attempts, noted)
    SELECT s.kept, h.did, h.reason, h.due_at, h.attempts, h.noted FROM heal_account h
    JOIN host_spelling s ON s.id = h.host_id WHERE true ON CONFLICT (did, host_id) DO NOTHING;
DELETE FROM heal_account WHERE host_id IN (SELECT id FROM host_spelling);
DELETE FROM heal_host WHERE host_id IN (SELECT id FROM host_spelling);
DELETE FROM collection_host WHERE host_id IN (SELECT id FROM host_spelling);
DELETE FROM host_state WHERE host_id IN (SELECT id FROM host_spelling);
DELETE FROM host WHERE id IN (SELECT id FROM host_spelling);
DROP TABLE host_spelling;
UPDATE host SET hostname = lower(rtrim(hostname, '.')) WHERE hostname <> lower(rtrim(hostname, '.'));
