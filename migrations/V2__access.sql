-- Who may call the API, and what a sensor is beyond its name.

-- People, who exchange a password for a token. A role holds in one network, or in all where
-- `network_identifier` is null.
create table account (
    identifier uuid primary key,
    name text not null constraint account_name unique,
    -- argon2id, in the form of a PHC string.
    password_hash text not null,
    role text not null check (role in ('viewer', 'operator', 'admin')),
    network_identifier uuid references network (identifier) on delete cascade,
    creation_timestamp timestamptz not null default now()
);

-- Bearer tokens: those of machines, and the sessions of accounts. `digest` is SHA-256 of the token,
-- which is shown once and kept nowhere. Revoking one deletes the row.
create table token (
    identifier uuid primary key,
    name text not null,
    digest bytea not null constraint token_digest unique check (octet_length(digest) = 32),
    role text not null check (role in ('viewer', 'operator', 'admin')),
    network_identifier uuid references network (identifier) on delete cascade,
    -- Set where it is a session.
    account_identifier uuid references account (identifier) on delete cascade,
    creation_timestamp timestamptz not null default now(),
    expiry_timestamp timestamptz,
    -- Within a minute.
    last_used_timestamp timestamptz
);

create unique index token_name on token (name) where account_identifier is null;
create index token_account on token (account_identifier) where account_identifier is not null;
create index token_network on token (network_identifier) where network_identifier is not null;
create index token_expiry on token (expiry_timestamp) where expiry_timestamp is not null;
create index account_network on account (network_identifier) where network_identifier is not null;

-- `metadata` is the user's, and not sent to the sensor. `last_seen_timestamp` is when its last
-- message reached the service, noted in bulk and a little late; the room that pages keep free lets
-- that change no index.
alter table sensor
    add column metadata jsonb not null default '{}' check (jsonb_typeof(metadata) = 'object'),
    add column last_seen_timestamp timestamptz,
    set (fillfactor = 70);

create index sensor_by_name on sensor (name, identifier);
