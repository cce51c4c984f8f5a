-- Why the newest attempt to publish a configuration failed; null when the broker took it, or was not asked yet.

alter table configuration add column problem text;
