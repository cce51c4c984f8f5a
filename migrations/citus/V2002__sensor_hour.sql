-- The roll-up too, so that its rows are on the nodes of those that they sum up. The rows that the coordinator stored
-- before are copied to the shards.
do $$
begin
    perform create_distributed_table('sensor_hour', 'sensor_identifier', colocate_with => 'measurement');
    perform truncate_local_data_after_distributing_table('sensor_hour');
end $$;
