-- What the API keeps so that a repeated request gets the first answer, and so that the aggregates of
-- weeks are not counted anew each time.

-- The first answer under an Idempotency-Key: the revision that it created, and the SHA-256 of the
-- body, by which another request under the same key is told apart. Old ones are deleted.
create table idempotency_key (
    sensor_identifier uuid not null references sensor (identifier) on delete cascade,
    key text not null,
    body_digest bytea not null,
    revision integer not null,
    creation_timestamp timestamptz not null default now(),
    primary key (sensor_identifier, key)
);

create index idempotency_key_age on idempotency_key (creation_timestamp);

-- The numbers of one attribute in ten minutes of a sensor, kept once somebody has asked for them.
-- Rows of `measurement` come late and go with their partition: a roll-up counts only while
-- `row_count` and `digest_xor` are those of the rows that are there.
create table measurement_rollup (
    sensor_identifier uuid not null references sensor (identifier) on delete cascade,
    attribute text not null,
    segment timestamptz not null,
    row_count integer not null,
    digest_xor bigint not null,
    value_count integer not null,
    minimum numeric,
    total numeric,
    maximum numeric,
    primary key (sensor_identifier, attribute, segment)
);
