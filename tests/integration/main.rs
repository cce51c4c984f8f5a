//! The one integration-test binary: a file per promise, all on real servers.
//! `support` starts those servers; every other module holds the tests of what it is named after.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod access;
mod api;
mod configurations;
mod isolation;
mod outages;
mod partitions;
mod puback;
mod rejections;
mod replay;
mod sensors;
mod servers;
mod support;
mod tour;
mod wire;
