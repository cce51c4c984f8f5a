-- True where the sensor named no time and `creation_timestamp` is that of the receipt (`TIMESTAMP_MISSING=receipt`),
-- each item of an array a microsecond after the one before; null elsewhere.
alter table measurement add column timed_at_receipt boolean;
alter table log_message add column timed_at_receipt boolean;
alter table heartbeat add column timed_at_receipt boolean;

-- Whether nothing can deliver the message again (QoS 0), so that its items without timestamps may be replayed. False
-- for what was rejected before, of which it is not known.
alter table rejection add column delivered_once boolean not null default false;
