-- Rejections are replayed, listed and deleted by their reason, too.
create index rejection_reason on rejection (reason, identifier);
