-- The hot tables, distributed by sensor and colocated. All else stays on the coordinator: it is small, its foreign keys
-- cannot lead to distributed tables, and Citus does not pass the parameters on with which `sensor_hour` is upserted.
do $$
declare
    shards integer := current_setting('tributary.citus_shards');
begin
    perform create_distributed_table('measurement', 'sensor_identifier', shard_count => shards, colocate_with => 'none');
    perform create_distributed_table('log_message', 'sensor_identifier', colocate_with => 'measurement');
    perform create_distributed_table('heartbeat', 'sensor_identifier', colocate_with => 'measurement');
end $$;

update engine set name = 'citus';
