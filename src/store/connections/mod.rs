//! Connections to PostgreSQL: what DATABASE_URL says of them. Used by the settings.

mod database_url;
mod ssl;

pub use database_url::{UrlError, describe, nowhere, read_url, without_password};
pub use ssl::{Ssl, SslError, SslMode};
