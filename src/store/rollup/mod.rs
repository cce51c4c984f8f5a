//! The roll-up, table `sensor_hour`: counts and sums of each sensor by hour, which outlive the rows. A commit
//! journals what it stored; [`fold`] adds the journal to the counts; [`recount`] sums up the hours that are over,
//! and again those that changed; [`rebuild`] counts a range again from the rows; [`months`] sums up days in
//! `sensor_month`.

pub(super) mod aggregation;
pub(super) mod fold;
pub(super) mod hours;
pub(super) mod lock;
mod months;
mod parts;
pub(super) mod rebuild;
pub(super) mod recount;
pub(super) mod sums;
