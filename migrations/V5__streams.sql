-- How much each sensor said, in buckets of four hours over the last 28 days: what the fleet's stream
-- begins with. A bucket's number is its begin in Unix seconds divided by 14400, by the sensor's clock.

create table activity (
    sensor_identifier uuid not null references sensor (identifier) on delete cascade,
    bucket integer not null,
    measurement_count bigint not null,
    log_message_count bigint not null,
    heartbeat_count bigint not null,
    primary key (sensor_identifier, bucket)
);

-- A commit adds one row here, which says what it stored, by sensor and bucket; once a minute at the
-- latest these are folded into `activity`. So the counts are exact whatever crashes, and a commit
-- waits for no other. `kinds`: 0 measurement, 1 log message, 2 heartbeat.
create table activity_journal (
    identifier bigint generated always as identity primary key,
    sensors uuid[] not null,
    buckets integer[] not null,
    kinds smallint[] not null,
    counts integer[] not null
);

-- Identifiers do not compress: it is not tried.
alter table activity_journal alter column sensors set storage external;

-- What was stored before this table was there.
insert into activity (sensor_identifier, bucket, measurement_count, log_message_count, heartbeat_count)
select sensor_identifier, floor(extract(epoch from said.creation_timestamp) / 14400)::integer as bucket,
       count(*) filter (where kind = 0), count(*) filter (where kind = 1), count(*) filter (where kind = 2)
from (
    select sensor_identifier, creation_timestamp, 0 as kind from measurement
    where creation_timestamp > now() - interval '28 days' and creation_timestamp <= now()
    union all
    select sensor_identifier, creation_timestamp, 1 from log_message
    where creation_timestamp > now() - interval '28 days' and creation_timestamp <= now()
    union all
    select sensor_identifier, creation_timestamp, 2 from heartbeat
    where creation_timestamp > now() - interval '28 days' and creation_timestamp <= now()
) as said
join sensor on sensor.identifier = said.sensor_identifier
group by sensor_identifier, bucket;
