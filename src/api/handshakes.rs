//! The TLS handshakes in progress, bounded in total and per address. Used by `acceptor`. Pure. Over a bound, the
//! oldest is ended: an honest client finishes within milliseconds, a silent one never does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// Each holds a socket and some kilobytes.
const MAX_HANDSHAKES: usize = 1_024;

/// From one IPv4 address or one IPv6 network, which many clients may share.
const MAX_OF_NETWORK: usize = 64;

/// One per process.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// In the order in which they began. Dropping a sender ends its handshake.
    handshakes: BTreeMap<u64, (IpAddr, oneshot::Sender<()>)>,
    last_number: u64,
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Arc<Handshakes>,
    number: u64,
    evicted: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn begin(self: &Arc<Self>, network: IpAddr) -> Handshake {
        let (sender, evicted) = oneshot::channel();
        let mut state = self.lock();
        let evict_from = if state.count_of(network) >= MAX_OF_NETWORK {
            Some(network)
        } else if state.handshakes.len() >= MAX_HANDSHAKES {
            state.largest()
        } else {
            None
        };
        if let Some(network) = evict_from {
            state.evict_oldest(network);
        }
        state.last_number += 1;
        let number = state.last_number;
        state.handshakes.insert(number, (network, sender));
        Handshake { all: Arc::clone(self), number, evicted }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// Counting scans all: at most `MAX_HANDSHAKES`, less work than one handshake.
impl State {
    fn count_of(&self, network: IpAddr) -> usize {
        self.handshakes.values().filter(|it| it.0 == network).count()
    }

    /// The network with the most handshakes.
    fn largest(&self) -> Option<IpAddr> {
        let mut counts = BTreeMap::new();
        for (network, _) in self.handshakes.values() {
            *counts.entry(*network).or_insert(0) += 1;
        }
        counts.into_iter().max_by_key(|(_, count)| *count).map(|(network, _)| network)
    }

    fn evict_oldest(&mut self, network: IpAddr) {
        let oldest = self.handshakes.iter().find(|(_, it)| it.0 == network);
        if let Some(number) = oldest.map(|(number, _)| *number) {
            self.handshakes.remove(&number);
        }
    }
}

impl Handshake {
    /// Returns when it must end.
    pub(super) async fn evicted(&mut self) {
        // Nothing is ever sent.
        drop((&mut self.evicted).await);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().handshakes.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    fn is_evicted(handshake: &mut Handshake) -> bool {
        handshake.evicted.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn over_the_total_limit_the_address_with_the_most_loses_its_oldest() {
        let handshakes = Arc::<Handshakes>::default();
        let mut busy: Vec<_> = (0..3).map(|_| handshakes.begin(address(0))).collect();
        let mut single: Vec<_> =
            (1..=MAX_HANDSHAKES).map(|number| handshakes.begin(address(number))).collect();
        assert_eq!(handshakes.lock().handshakes.len(), MAX_HANDSHAKES);
        let count = |all: &mut [Handshake]| all.iter_mut().map(is_evicted).filter(|it| *it).count();
        assert_eq!((count(&mut busy), count(&mut single)), (2, 1));
        drop((busy, single));
        assert!(handshakes.lock().handshakes.is_empty());
    }
}
