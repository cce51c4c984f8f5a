//! The settings of HTTP. Read by `bind`, which also hands them to the middlewares. Pure.

use super::access::AccessConfig;
use crate::tls;

/// `HTTP_…`
#[derive(Clone, Debug)]
pub struct Config {
    /// `HTTP_ADDR`
    pub address: String,
    /// `HTTP_WORKERS`
    pub workers: usize,
    /// `HTTP_CERTIFICATE_FILE`, `HTTP_KEY_FILE`: with them it is HTTPS, and nothing else.
    pub tls: Option<tls::Server>,
    /// `HTTP_MAX_BODY_BYTES`: a configuration travels to its sensor in one packet.
    pub max_body_bytes: usize,
    /// `HTTP_WRITE_TIMEOUT_SECS`: how long a client may leave its response unread before it is disconnected.
    pub write_timeout_secs: u64,
    /// `HTTP_MIN_BYTES_PER_SEC`: the minimum average over the same time; 0 for no limit.
    pub min_bytes_per_sec: u64,
    /// `HTTP_TIMEOUT_SECS`
    pub timeout_secs: u64,
    /// `CORS_ORIGINS`: whose pages may call from a browser.
    pub cors_origins: Vec<String>,
    /// `DASHBOARD`: whether the pages of the dashboard are served.
    pub dashboard: bool,
    /// Who may call.
    pub access: AccessConfig,
}

impl Config {
    /// The default address.
    pub const DEFAULT_ADDRESS: &'static str = "127.0.0.1:8080";
}
