//! The one integration-test binary: a file per promise, all on real servers.
//! `support` starts those servers; every other module holds the tests of what it is named after.

mod api;
mod servers;
mod support;
