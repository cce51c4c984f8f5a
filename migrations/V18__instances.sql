-- The instances of the service: one row each, written every two seconds while it runs. Whose row is older than ten
-- seconds is not alive. `watched_sensors` are those with an open stream there; `heard` holds, by instance, the
-- `watch_version` that this one knows.
create table instance (
    identifier uuid primary key,
    client_id text not null,
    host text not null,
    version text not null,
    start_timestamp timestamptz not null,
    heartbeat_timestamp timestamptz not null,
    is_leader boolean not null,
    ledger jsonb not null,
    flow jsonb not null,
    watched_sensors uuid[] not null,
    watch_version bigint not null,
    heard jsonb not null
);

-- What one instance committed and the others must tell of: rows of sensors with an open stream elsewhere, and steps of
-- configurations. Kept for a minute. A gap in an instance's sequence shows that something was missed, as it is after a
-- crash of the server, which empties the table.
create unlogged table relayed_batch (
    instance_identifier uuid not null,
    sequence bigint not null,
    events jsonb not null,
    creation_timestamp timestamptz not null default now(),
    primary key (instance_identifier, sequence)
);
