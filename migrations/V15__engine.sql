-- What keeps the hot tables: PostgreSQL itself, or one of two extensions. It is chosen while they are empty, by the
-- steps in the folder of its name.
create table engine (
    is_only_row boolean primary key default true check (is_only_row),
    name text not null check (name in ('postgres', 'timescaledb', 'citus'))
);

insert into engine (name) values ('postgres');
