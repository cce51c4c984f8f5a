-- Notifies every instance, with the COMMIT, that a right to read may have ended: a token or a session
-- was deleted or changed, a sensor was deleted or moved to another network. It is a hint without
-- content: who hears it reads the tables.

create function notify_access_change() returns trigger language plpgsql as $$
begin
    perform pg_notify('tributary_access', '');
    return null;
end
$$;

create trigger token_deleted after delete on token
    for each row execute function notify_access_change();
create trigger token_truncated after truncate on token
    for each statement execute function notify_access_change();
-- When a token was last used is no change.
create trigger token_changed after update of role, network_identifier, expiry_timestamp on token
    for each statement execute function notify_access_change();

create trigger sensor_deleted after delete on sensor
    for each statement execute function notify_access_change();
create trigger sensor_moved after update of network_identifier on sensor
    for each row when (old.network_identifier is distinct from new.network_identifier)
    execute function notify_access_change();
