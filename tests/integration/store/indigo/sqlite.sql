CREATE TABLE `domain_bans` (`id` integer PRIMARY KEY AUTOINCREMENT,`created_at` datetime,`domain` text,CONSTRAINT `uni_domain_bans_domain` UNIQUE (`domain`));
CREATE TABLE `host` (`id` integer PRIMARY KEY AUTOINCREMENT,`created_at` datetime,`updated_at` datetime,`hostname` text NOT NULL,`no_ssl` numeric DEFAULT false,`account_limit` integer,`trusted` numeric DEFAULT false,`status` text DEFAULT "active",`last_seq` integer DEFAULT -1,`account_count` integer DEFAULT 0{alerts});
CREATE UNIQUE INDEX `idx_host_hostname` ON `host`(`hostname`);
CREATE TABLE `account` (`uid` integer PRIMARY KEY AUTOINCREMENT,`did` text NOT NULL,`host_id` integer NOT NULL,`status` text NOT NULL DEFAULT "active",`upstream_status` text NOT NULL DEFAULT "active");
CREATE UNIQUE INDEX `idx_account_d_id` ON `account`(`did`);
CREATE TABLE `account_repo` (`uid` integer PRIMARY KEY AUTOINCREMENT,`rev` text NOT NULL,`commit_cid` text NOT NULL,`commit_data_cid` text NOT NULL);
CREATE TABLE `log_file_refs` (`id` integer PRIMARY KEY AUTOINCREMENT,`created_at` datetime,`updated_at` datetime,`deleted_at` datetime,`path` text,`archived` numeric,`seq_start` integer);
CREATE INDEX `idx_log_file_refs_deleted_at` ON `log_file_refs`(`deleted_at`);
