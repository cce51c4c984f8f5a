//! Reads for the API: pages, summaries, aggregates and exports.

pub(super) mod activity_page;
pub(super) mod aggregates;
pub(super) mod attributes;
mod csv;
pub(super) mod export;
pub(super) mod export_statement;
pub(super) mod fleet_log;
mod hot_page;
mod hour_page;
pub(super) mod log_summary;
pub(super) mod members;
mod pages;
pub(super) mod rejection_summary;
pub(super) mod rows;
pub(super) mod sensor_list;
pub(super) mod sensor_summary;
pub(super) mod stored_rejections;
pub(super) mod turns;
