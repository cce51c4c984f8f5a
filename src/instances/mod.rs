//! Several instances on one database. `leader` decides which of them does the work that one does for all, `peers` knows
//! who else is alive, `relay` passes commits to the others. The tables are the truth: a notification only hastens the
//! next look.

mod leader;
mod peers;
mod relay;

pub use leader::lead;
pub use peers::{Identity, Peers, PeersHandles};
pub use relay::relay;
