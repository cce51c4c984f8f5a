//! The API over HTTP, on a real PostgreSQL; in the sensors' place stands one small actor that
//! remembers what it was told.

mod deletion;
mod fixture;
mod limits;
mod outage;
mod reading;
mod refusals;
mod writing;
