//! TLS to the broker, to PostgreSQL and in HTTP, with certificates that the tests create: valid, expired, for another
//! name, of another authority, and of clients.

mod broker;
mod database;
mod handshakes;
mod http;
