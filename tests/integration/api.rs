//! The API over HTTP, on a real PostgreSQL; in the sensors' place stands one small actor that
//! remembers what it was told.

mod aggregating;
mod configuring;
mod deletion;
mod exporting;
mod fixture;
mod narrowing;
mod outage;
mod reading;
mod refusals;
mod writing;
