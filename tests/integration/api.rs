//! The API over HTTP, on a real PostgreSQL. An actor that records messages replaces the supervisor.

mod access;
mod access_routes;
mod aggregates;
mod bodies;
mod configurations;
mod contention;
mod dashboard;
mod deletion;
mod exports;
mod filters;
mod fixture;
mod limits;
mod networks;
mod openapi;
mod outage;
mod problems;
mod reading;
mod rejections;
mod sensor_lists;
mod sessions;
mod writing;
