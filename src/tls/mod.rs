//! TLS by rustls, in one place for all who need it: [`Client`] for those who connect (to the broker,
//! to PostgreSQL), [`Server`] for the one who listens (HTTP). Both read their files again when they
//! change, so that a renewed certificate needs no restart. Whatever fails is one sentence: which
//! file, or by [`handshake_reason`] what was wrong with the other side.

mod client;
mod files;
mod reason;
mod renewed;
mod server;
mod verify;

pub use client::{Authority, Client, ClientOptions, Identity};
pub use files::{FileError, Role};
pub use reason::handshake_reason;
pub use server::Server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The cryptography that every connection uses.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Makes it the process's own, for libraries that ask for that. Called once, by `main`.
pub fn install_provider() {
    // Whoever was first has installed the same one.
    drop(ring::default_provider().install_default());
}
