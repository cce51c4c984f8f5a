-- A sensor's measurements lie scattered among those of all others: to read four weeks of one sensor is
-- to read tens of thousands of pages. So they are put together once more, four hours at a time, as soon
-- as these are over. Aggregates are summed up from here, whatever their bucket.

-- Rows of `measurement` come late and go with their partition: a bundle counts only while `row_count`
-- and `digest_xor` are those of the rows that are there. `period` is when the four hours begin, and
-- `said_count` what `activity` said of them, by which late rows are found. `lines` are the values, one a
-- line, each made at the moment at its place in `moments`; both are null where there is too much.
create table measurement_bundle (
    sensor_identifier uuid not null references sensor (identifier) on delete cascade,
    period timestamptz not null,
    said_count bigint not null,
    row_count integer not null,
    digest_xor bigint not null,
    moments timestamptz[],
    lines text,
    primary key (sensor_identifier, period)
);

-- The quick compression, where PostgreSQL was built with it.
do $$ begin
    alter table measurement_bundle
        alter column moments set compression lz4, alter column lines set compression lz4;
exception when feature_not_supported or invalid_parameter_value then
    raise notice 'bundles are compressed by pglz';
end $$;

-- They took longer than this to make, and were made for one attribute and when somebody had waited.
drop table measurement_rollup;
