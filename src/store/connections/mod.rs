//! Connections to PostgreSQL: DATABASE_URL, TLS, connecting, and closing a connection in the middle of a
//! request. Used by the pools, the exports, the migrations and the benchmark.

mod connection_string;
pub(super) mod connector;
mod database_url;
pub(super) mod last_connect_error;
pub(super) mod listener;
pub(super) mod pooled_client;
mod pooler;
pub(super) mod reader;
mod ssl;
mod stream;

pub use connection_string::UrlError;
pub use database_url::{describe, placeholder, read_url, without_password};
pub use pooler::refuse_transaction_pooling;
pub use ssl::{Ssl, SslError, SslMode};
