-- The sums of a sensor's days, one row per month (UTC), so that years of a sensor are dozens of rows. All of it can be
-- derived from `sensor_hour`; a month that has no row is read from there.
--
-- `sums` has a member for each day with measurements, from "0": {attribute: [count, minimum, sum, maximum]}, or null if
-- the day is to be read from `sensor_hour`. It holds while there is no `recount_at`; otherwise, from then on, the month
-- is summed up again.
create table sensor_month (
    sensor_identifier uuid not null,
    month date not null,
    recount_at timestamptz,
    sums json,
    primary key (sensor_identifier, month)
);

create index sensor_month_recount on sensor_month (recount_at) where recount_at is not null;

do $$ begin
    alter table sensor_month alter column sums set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
    raise notice 'sums are compressed by pglz';
end $$;

-- The month whose sensors get a row next, when it is over, and the last sensor that got one.
create table sensor_month_progress (
    month date not null,
    last_sensor uuid not null default '00000000-0000-0000-0000-000000000000'
);

insert into sensor_month_progress (month)
select case
    when exists (select from sensor) then date '2015-01-01'
    else date_trunc('month', now() at time zone 'utc')::date
end;

-- Whoever changes a day of a month that is over ends its sums in the same transaction. Days of the present month cost
-- only the condition.
create function end_month_sums() returns trigger language plpgsql as $$
begin
    insert into sensor_month as known (sensor_identifier, month, recount_at)
    values (new.sensor_identifier, date_trunc('month', new.day), now() + interval '1 hour')
    on conflict (sensor_identifier, month) do update set recount_at = excluded.recount_at, sums = null
    where known.recount_at is null;
    return null;
end
$$;

create trigger sensor_hour_changed after insert or update on sensor_hour
    for each row when (new.day < date_trunc('month', now() at time zone 'utc'))
    execute function end_month_sums();

-- Days that were deleted do not come back: what is left of their month is read from `sensor_hour`.
create function delete_months() returns trigger language plpgsql as $$
begin
    delete from sensor_month
    using (select distinct sensor_identifier, date_trunc('month', day)::date as month from deleted) as of_days
    where sensor_month.sensor_identifier = of_days.sensor_identifier and sensor_month.month = of_days.month;
    return null;
end
$$;

create trigger sensor_hour_deleted after delete on sensor_hour referencing old table as deleted
    for each statement execute function delete_months();
