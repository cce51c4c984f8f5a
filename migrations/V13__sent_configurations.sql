-- When the first PUBLISH of a configuration was about to leave, by the clock of the instance that sent it. A heartbeat
-- acknowledges a revision only if it was received after that. Null also for what was published by earlier versions;
-- `publication_timestamp`, when the broker's first PUBACK was recorded, then takes its place.
alter table configuration add column sent_timestamp timestamptz;
