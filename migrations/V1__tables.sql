-- The tables of Tributary. Times are timestamptz: `creation_timestamp` is the sensor's own clock on
-- what a sensor says and ours elsewhere, `receipt_timestamp` is when it reached the service.

create table network (
    identifier uuid primary key,
    name text not null unique,
    creation_timestamp timestamptz not null default now()
);

insert into network (identifier, name) values ('00000000-0000-0000-0000-000000000000', 'default');

create table sensor (
    identifier uuid primary key,
    network_identifier uuid not null default '00000000-0000-0000-0000-000000000000'
        references network (identifier),
    name text not null,
    creation_timestamp timestamptz not null default now(),
    constraint sensor_name unique (network_identifier, name)
);

-- Sensors that were deleted lately. A commit that runs beside the deletion reads it, so that no row
-- of a deleted sensor is left behind; the retained configuration is cleared from it, as from an
-- outbox; then it goes.
create table deleted_sensor (
    identifier uuid primary key,
    deletion_timestamp timestamptz not null default now(),
    clearance_timestamp timestamptz
);

-- The outbox of what goes down: a row is published once `publication_timestamp` is set.
create table configuration (
    sensor_identifier uuid not null references sensor (identifier) on delete cascade,
    revision integer not null check (revision >= 0),
    value jsonb not null,
    creation_timestamp timestamptz not null default now(),
    publication_timestamp timestamptz,
    -- By the sensor's clock, and by ours; of its first acknowledgement.
    acknowledgement_timestamp timestamptz,
    acknowledgement_receipt_timestamp timestamptz,
    success boolean,
    primary key (sensor_identifier, revision)
);

create index configuration_unpublished on configuration (sensor_identifier, revision desc)
    where publication_timestamp is null;

create index configuration_acknowledged on configuration (sensor_identifier, revision desc)
    where acknowledgement_timestamp is not null;

-- The hot tables carry no foreign key: measured, one halves the rate of COPY. `digest` is 64 bits
-- over the content, and the unique index is what makes a redelivery change nothing.

create table measurement (
    sensor_identifier uuid not null,
    creation_timestamp timestamptz not null,
    receipt_timestamp timestamptz not null,
    digest bigint not null,
    revision integer not null,
    value jsonb not null
) partition by range (creation_timestamp);

create unique index measurement_identity on measurement (sensor_identifier, creation_timestamp, digest);

create table measurement_default partition of measurement default;

create table log_message (
    sensor_identifier uuid not null,
    creation_timestamp timestamptz not null,
    receipt_timestamp timestamptz not null,
    digest bigint not null,
    revision integer not null,
    severity text not null check (severity in ('info', 'warning', 'error')),
    subject text not null,
    details text
) partition by range (creation_timestamp);

create unique index log_message_identity on log_message (sensor_identifier, creation_timestamp, digest);

create table log_message_default partition of log_message default;

create table heartbeat (
    sensor_identifier uuid not null,
    creation_timestamp timestamptz not null,
    receipt_timestamp timestamptz not null,
    digest bigint not null,
    revision integer not null,
    success boolean not null
) partition by range (creation_timestamp);

create unique index heartbeat_identity on heartbeat (sensor_identifier, creation_timestamp, digest);

create table heartbeat_default partition of heartbeat default;

-- What can never be stored. `digest` is 128 bits over topic and payload: with the item's index it
-- keeps a redelivery from adding a row. `item_index` is null where the whole message is refused.
create table rejection (
    identifier bigint generated always as identity primary key,
    receipt_timestamp timestamptz not null,
    topic text not null,
    sensor_identifier uuid,
    kind text check (kind in ('measurement', 'log_message', 'heartbeat')),
    item_index integer,
    item_count integer not null,
    reason text not null,
    detail text not null,
    raw bytea not null,
    digest uuid not null,
    constraint rejection_identity unique nulls not distinct (digest, item_index)
);

create index rejection_sensor on rejection (sensor_identifier, identifier desc);

-- A flood of rejections beyond the bound per sensor and hour: counted, not kept. The nil identifier
-- stands for topics that name no sensor.
create table rejection_overflow (
    sensor_identifier uuid not null,
    hour timestamptz not null,
    item_count bigint not null,
    primary key (sensor_identifier, hour)
);
