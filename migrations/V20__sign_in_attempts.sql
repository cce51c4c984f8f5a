-- Attempts to sign in that failed, counted over all instances: a token bucket per address, and per address and name.
-- `key` is a digest. A row whose bucket is full again counts for nothing and is deleted by a later attempt. After a crash
-- of the server all buckets are full.
create unlogged table sign_in_bucket (
    key bytea primary key,
    full_timestamp timestamptz not null
);
create index on sign_in_bucket (full_timestamp);
