//! Access control: networks, users and tokens.

pub(super) mod access_watch;
pub(super) mod networks;
pub(super) mod sign_ins;
pub(super) mod tokens;
pub(super) mod users;
