-- Lists and counts of sensors read the newest configuration of each, and its state. Both are kept in its row, so that they
-- do not depend on how many revisions there were. `is_newest` changes only when the next revision is created.
alter table configuration
    add column is_newest boolean not null default true,
    add column state text not null generated always as (
        case when acknowledgement_timestamp is not null and not success then 'failed'
             when acknowledgement_timestamp is not null then 'acknowledged'
             when publication_timestamp is null then 'pending'
             else 'published' end
    ) stored;

update configuration set is_newest = false
from configuration newer
where newer.sensor_identifier = configuration.sensor_identifier and newer.revision > configuration.revision;

create unique index configuration_newest on configuration (sensor_identifier)
    include (revision, state, publication_timestamp) where is_newest;
create index configuration_state on configuration (state, sensor_identifier) where is_newest;

-- Only the newest is published.
drop index configuration_unpublished;
create index configuration_unpublished on configuration (sensor_identifier)
    where is_newest and publication_timestamp is null;
