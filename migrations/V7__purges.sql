-- A deletion is on record at once, and the sensor's rows are purged then, which takes minutes where
-- there are millions. Until this is set some may be left, and the identifier cannot be used again.
alter table deleted_sensor add column purge_timestamp timestamptz;
