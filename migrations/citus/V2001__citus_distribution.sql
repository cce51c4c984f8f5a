-- The hot tables, distributed by sensor and colocated. All else stays on the coordinator: it is small, its foreign keys
-- cannot lead to distributed tables, and Citus does not pass the parameters on with which `sensor_hour` is upserted.
do $$
declare
    shards integer := current_setting('tributary.citus_shards');
    name text;
    has_rows boolean;
begin
    -- A service may still be writing.
    foreach name in array array['measurement', 'log_message', 'heartbeat'] loop
        execute format('lock table %I in access exclusive mode', name);
        execute format('select exists (select 1 from %I)', name) into has_rows;
        if has_rows then
            raise exception 'the table % has rows already; another engine needs a new database', name;
        end if;
    end loop;
    perform create_distributed_table('measurement', 'sensor_identifier', shard_count => shards, colocate_with => 'none');
    perform create_distributed_table('log_message', 'sensor_identifier', colocate_with => 'measurement');
    perform create_distributed_table('heartbeat', 'sensor_identifier', colocate_with => 'measurement');
end $$;

update engine set name = 'citus';
