//! The HTTP side.

/// `HTTP_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `HTTP_ADDR`
    pub address: String,
    /// `HTTP_WORKERS`
    pub workers: usize,
}

impl Config {
    /// Where the API listens when nothing is said.
    pub const DEFAULT_ADDRESS: &'static str = "127.0.0.1:8080";
}
