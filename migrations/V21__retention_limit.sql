-- Up to which age a table's rows have been deleted: those received before may be missing, however long the retention is
-- now. A rebuild of the roll-up does not lower their counts.
create table retention_limit (
    table_name text primary key,
    limit_timestamp timestamptz not null
);

insert into retention_limit values
    ('measurement', '1970-01-01Z'), ('log_message', '1970-01-01Z'), ('heartbeat', '1970-01-01Z');

-- What is stored already need not be counted twice.
update rollup_rebuild as later set to_hour = newest.from_hour
from rollup_rebuild as newest
where newest.identifier < later.identifier and newest.to_hour = later.to_hour
    and newest.from_hour > later.from_hour;

-- Arrays count from 1: PostgreSQL extends an empty one from the place that is set.
update sensor_hour set
    measurement_counts = array_fill(0, array[coalesce(array_lower(measurement_counts, 1), 2) - 1]) || measurement_counts,
    log_message_counts = array_fill(0, array[coalesce(array_lower(log_message_counts, 1), 2) - 1]) || log_message_counts,
    heartbeat_counts = array_fill(0, array[coalesce(array_lower(heartbeat_counts, 1), 2) - 1]) || heartbeat_counts
where array_lower(measurement_counts, 1) is distinct from 1
    or array_lower(log_message_counts, 1) is distinct from 1
    or array_lower(heartbeat_counts, 1) is distinct from 1;
