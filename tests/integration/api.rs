//! The API over HTTP, on a real PostgreSQL; in the sensors' place stands one small actor that
//! remembers what it was told.

mod access;
mod access_routes;
mod aggregating;
mod bodies;
mod configuring;
mod crowds;
mod dashboard;
mod deletion;
mod document;
mod exporting;
mod fixture;
mod limits;
mod narrowing;
mod networks;
mod outage;
mod reading;
mod refusals;
mod rejecting;
mod sensor_lists;
mod sessions;
mod writing;
