-- The hot tables as hypertables of TimescaleDB. There is no default partition: `<table>_outlier` stores the rows whose
-- interval is not in `chunk_interval`, so that wrong clocks do not make chunks. Reads use the view with the table's name.
-- An interval is never deleted: a row goes to the same table each time, and the unique indexes find its duplicates.
do $$
declare
    name text;
    has_rows boolean;
begin
    -- Nothing moves the rows, and a service may still be writing.
    foreach name in array array['measurement', 'log_message', 'heartbeat'] loop
        execute format('lock table %I in access exclusive mode', name);
        execute format('select exists (select 1 from %I)', name) into has_rows;
        if has_rows then
            raise exception 'the table % has rows already; another engine needs a new database', name;
        end if;
    end loop;
end $$;

create table chunk_interval (
    table_name text not null,
    begin_timestamp timestamptz not null,
    end_timestamp timestamptz not null,
    primary key (table_name, begin_timestamp, end_timestamp)
);

do $$
declare
    name text;
    columns text;
    days integer := current_setting('tributary.partition_days');
begin
    foreach name in array array['measurement', 'log_message', 'heartbeat'] loop
        execute format('create table %I (like %I including all)', name || '_chunks', name);
        execute format('create table %I (like %I including all)', name || '_outlier', name);
        execute format('drop table %I', name);
        perform create_hypertable((name || '_chunks')::regclass, 'creation_timestamp',
            chunk_time_interval => make_interval(days => days), create_default_indexes => false);
        select string_agg(quote_ident(attname), ', ' order by attnum) into columns
        from pg_attribute
        where attrelid = (name || '_chunks')::regclass and attnum > 0 and not attisdropped;
        execute format('create view %1$I as select %2$s from %3$I union all select %2$s from %4$I',
            name, columns, name || '_chunks', name || '_outlier');
    end loop;
end $$;

-- For rows that an operator inserts into a view, or deletes from it. The service writes to the tables themselves.
create function write_hot_row() returns trigger language plpgsql as $$
declare
    target text := tg_table_name || '_outlier';
begin
    if tg_op = 'DELETE' then
        foreach target in array array[tg_table_name || '_chunks', tg_table_name || '_outlier'] loop
            execute format('delete from %I where sensor_identifier = $1 and creation_timestamp = $2 and digest = $3', target)
            using old.sensor_identifier, old.creation_timestamp, old.digest;
        end loop;
        return old;
    end if;
    if exists (
        select 1 from chunk_interval
        where table_name = tg_table_name
          and begin_timestamp <= new.creation_timestamp and new.creation_timestamp < end_timestamp
    ) then
        target := tg_table_name || '_chunks';
    end if;
    execute format('insert into %I select ($1).*', target) using new;
    return new;
end $$;

create trigger write_hot_row instead of insert or delete on measurement
    for each row execute function write_hot_row();
create trigger write_hot_row instead of insert or delete on log_message
    for each row execute function write_hot_row();
create trigger write_hot_row instead of insert or delete on heartbeat
    for each row execute function write_hot_row();

update engine set name = 'timescaledb';
