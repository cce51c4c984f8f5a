-- A sensor may run under no configuration from the server; its items then have no revision.
alter table measurement alter column revision drop not null;
alter table log_message alter column revision drop not null;
alter table heartbeat alter column revision drop not null;
