CREATE TABLE "domain_bans" ("id" bigserial,"created_at" timestamptz,"domain" text,PRIMARY KEY ("id"),CONSTRAINT "uni_domain_bans_domain" UNIQUE ("domain"));
CREATE TABLE "host" ("id" bigserial,"created_at" timestamptz,"updated_at" timestamptz,"hostname" text NOT NULL,"no_ssl" boolean DEFAULT false,"account_limit" bigint,"trusted" boolean DEFAULT false,"status" text DEFAULT 'active',"last_seq" bigint DEFAULT -1,"account_count" bigint DEFAULT 0{alerts},PRIMARY KEY ("id"));
CREATE UNIQUE INDEX IF NOT EXISTS "idx_host_hostname" ON "host" ("hostname");
CREATE TABLE "account" ("uid" bigserial,"did" text NOT NULL,"host_id" bigint NOT NULL,"status" text NOT NULL DEFAULT 'active',"upstream_status" text NOT NULL DEFAULT 'active',PRIMARY KEY ("uid"));
CREATE UNIQUE INDEX IF NOT EXISTS "idx_account_d_id" ON "account" ("did");
CREATE TABLE "account_repo" ("uid" bigserial,"rev" text NOT NULL,"commit_cid" text NOT NULL,"commit_data_cid" text NOT NULL,PRIMARY KEY ("uid"));
CREATE TABLE "log_file_refs" ("id" bigserial,"created_at" timestamptz,"updated_at" timestamptz,"deleted_at" timestamptz,"path" text,"archived" boolean,"seq_start" bigint,PRIMARY KEY ("id"));
CREATE INDEX IF NOT EXISTS "idx_log_file_refs_deleted_at" ON "log_file_refs" ("deleted_at");
