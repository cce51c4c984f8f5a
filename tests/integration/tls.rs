//! TLS to the broker, to PostgreSQL and in HTTP, with certificates made here: the right one, an
//! expired one, one for another name, one of another authority, and a client's.

mod broker;
mod database;
mod handshakes;
mod http;
