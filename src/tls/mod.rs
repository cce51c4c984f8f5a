//! TLS with rustls: [`Client`] for connections to the broker and to PostgreSQL, [`Server`] for HTTP. Both read
//! their files again when they change, so that a renewed certificate needs no restart. Each failure is one
//! sentence, which names the file or, by [`handshake_reason`], what was wrong with the peer.

mod client;
mod files;
mod reason;
mod renewed;
mod server;
mod verify;

pub use client::{Authority, Client, ClientIdentity, ClientOptions};
pub use files::{FileError, FilePurpose};
pub use reason::handshake_reason;
pub use server::Server;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};

/// The cryptography of all connections.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// Installs it as the process's default, which some libraries use. Called once, by `main`.
pub fn install_provider() {
    // An error means that it is installed already.
    drop(ring::default_provider().install_default());
}
