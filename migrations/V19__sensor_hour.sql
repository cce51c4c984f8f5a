-- The roll-up: what each sensor sent in each hour, one row per sensor and day (UTC, by the sensor's clock), so that
-- years of a sensor are hundreds of rows. It outlives the rows that it sums up.
--
-- The arrays count items by hour of the day, from 1; they end with the last hour that has any, and null is 0. `sums`
-- has a member for each hour whose measurements were summed up, from "0": [number of measurements, {attribute:
-- [count, minimum, sum, maximum]}]. It holds while that number is the hour's measurement count; otherwise, from
-- `recount_at` on, the hour is summed up again.
create table sensor_hour (
    sensor_identifier uuid not null,
    day date not null,
    measurement_counts integer[] not null,
    log_message_counts integer[] not null,
    heartbeat_counts integer[] not null,
    recount_at timestamptz,
    sums jsonb,
    primary key (sensor_identifier, day)
    -- Half of each page is free, so that a row is updated in its page, without its indexes. Large sums lie out of
    -- line, and the counts never: reads of counts do not read sums.
) with (fillfactor = 50, toast_tuple_target = 128);

alter table sensor_hour alter column measurement_counts set storage plain,
    alter column log_message_counts set storage plain, alter column heartbeat_counts set storage plain;

create index sensor_hour_recount on sensor_hour (recount_at) where recount_at is not null;
create index sensor_hour_day on sensor_hour using brin (day) with (autosummarize = on);

do $$ begin
    alter table sensor_hour alter column sums set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
    raise notice 'sums are compressed by pglz';
end $$;

-- A commit adds one row: what it stored, by sensor, hour (Unix time divided by 3600) and kind (0 measurement, 1 log
-- message, 2 heartbeat). In the background they are added to the counts.
create table sensor_hour_journal (
    identifier bigint generated always as identity primary key,
    commit_timestamp timestamptz not null default now(),
    sensors uuid[] not null,
    hours integer[] not null,
    kinds smallint[] not null,
    counts integer[] not null
);

-- Identifiers do not compress.
alter table sensor_hour_journal alter column sensors set storage external;

-- Hours to count again from the rows, sensor by sensor, in the background. Until it is empty, aggregates are read
-- from the rows, and no measurement is dropped.
create table rollup_rebuild (
    identifier integer generated always as identity primary key,
    from_hour integer not null,
    to_hour integer not null,
    last_sensor uuid
);

-- Everything that is stored already; the last four weeks first.
insert into rollup_rebuild (from_hour, to_hour)
select floor(extract(epoch from now()) / 3600)::integer - 672, 70389503
where exists (select from sensor)
union all
select 0, 70389503 where exists (select from sensor);

drop table activity, activity_journal, measurement_bundle;
