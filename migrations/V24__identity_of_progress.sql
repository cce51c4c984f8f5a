-- A replica identity: while a publication has all tables, PostgreSQL refuses updates of a table without one.
alter table sensor_month_progress
    add column is_only_row boolean default true primary key check (is_only_row);
