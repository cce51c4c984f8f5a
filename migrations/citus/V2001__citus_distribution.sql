-- The hot tables, and what is rolled up of them, distributed by sensor and colocated. All else stays on the coordinator:
-- it is small, and its foreign keys cannot lead to distributed tables.
do $$
declare
    name text;
    shards integer := current_setting('tributary.citus_shards');
begin
    perform create_distributed_table('measurement', 'sensor_identifier', shard_count => shards, colocate_with => 'none');
    foreach name in array array['log_message', 'heartbeat', 'sensor_hour'] loop
        if to_regclass(name) is not null then
            perform create_distributed_table(name, 'sensor_identifier', colocate_with => 'measurement');
        end if;
    end loop;
end $$;

update engine set name = 'citus';
