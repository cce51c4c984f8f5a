-- What the dashboard's lists read: the newest log messages of all sensors, and sensors by a part of their name.

create index log_message_newest on log_message (creation_timestamp, digest, sensor_identifier);

-- Without pg_trgm, or the right to create it, a search reads the table `sensor` instead.
do $$ begin
    create extension if not exists pg_trgm;
    create index sensor_name_part on sensor using gin (name gin_trgm_ops);
exception when insufficient_privilege or feature_not_supported or undefined_file or undefined_object then
    raise notice 'sensors are searched without an index: %', sqlerrm;
end $$;
