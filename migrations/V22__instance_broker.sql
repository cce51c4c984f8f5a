-- Which topics of which broker an instance serves: instances with different ones must not share a database. Empty while
-- an earlier release writes the row.
alter table instance
    add column topic_prefix text not null default '',
    add column broker text not null default '';
