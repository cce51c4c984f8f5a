-- A fold writes a row for each sensor that sent something. It has locked the sensors that exist, so the
-- foreign key checked each of them once more: two thirds of the time of a fold into a new bucket. A
-- deletion deletes the sensor's counts itself. Free space in each page lets a fold update its rows there.
alter table activity drop constraint activity_sensor_identifier_fkey, set (fillfactor = 50);
