//! Free ports on loopback. Called once per private server, which keeps its port over its restarts.
//! Promises a port that nothing listened on a moment ago and that no outgoing connection is given.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below Linux's ephemeral range (32768 and up). A port from that range, free while its server is down, could be
/// lent to an outgoing connection, and a client that reconnects to it could even connect to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A free port; two calls in one process never give the same one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Test processes that run at the same time begin far apart: 4,001 shares no factor with the count.
    let start = std::process::id().wrapping_mul(4_001);
    (0..COUNT)
        .map(|_| {
            let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
            let offset = start.wrapping_add(step) % u32::from(COUNT);
            FIRST + u16::try_from(offset).expect("an offset is below the count")
        })
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .expect("one of 12,000 ports is free")
}
