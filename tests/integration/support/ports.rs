//! Free ports on loopback. Called once per private server, which keeps its port over restarts.
//! Returns a port without a listener, outside the range of outgoing connections.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ephemeral range of Linux (32768 and up). While a server is stopped, the kernel could assign an ephemeral
/// port to an outgoing connection, and a client that reconnects could even connect to itself.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A free port; each call in a process returns another one.
pub(crate) fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Concurrent test processes start at distant ports: 4,001 and the count are coprime.
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
