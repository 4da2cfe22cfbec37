INSERT INTO host (created_at,updated_at,hostname,no_ssl,account_limit,trusted,status,last_seq,account_count) VALUES ('2025-03-04 05:06:07.123456789+00:00','2025-03-04 05:06:07+00:00','pds.example.com',false,1000,true,'active',4711,2);
INSERT INTO host (created_at,updated_at,hostname,no_ssl,account_limit,trusted,status,last_seq,account_count) VALUES ('2025-03-05 01:00:00+02:00','2025-03-05 01:00:00+02:00','bad.example.org',false,100,false,'banned',-1,0);
INSERT INTO account (did,host_id,status,upstream_status) VALUES ('did:plc:aaaaaaaaaaaaaaaaaaaaaaaa',1,'active','active');
INSERT INTO account (did,host_id,status,upstream_status) VALUES ('did:plc:bbbbbbbbbbbbbbbbbbbbbbbb',1,'takendown','deactivated');
INSERT INTO account_repo (uid,rev,commit_cid,commit_data_cid) VALUES (1,'3ljqmdqb2sk2a','bafyreigbtj4x7ip5legnfznufuopl4sg4knzc2cof6duas4b3q2fy6swua','bafyreie5737gdxlw5i64vzichcalba3z2v5n6icifvx5xytvske7mr3hpm');
INSERT INTO domain_bans (created_at,domain) VALUES ('2025-03-04 05:06:07+00:00','Example.NET');
INSERT INTO log_file_refs (created_at,updated_at,path,archived,seq_start) VALUES ('2025-03-04 05:06:07+00:00','2025-03-04 05:06:07+00:00','evts-0',false,0);
