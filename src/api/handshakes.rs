//! The TLS handshakes in progress, bounded in total and per address. Used by `acceptor`. Pure. Over a bound, the
//! oldest is ended: an honest client finishes within milliseconds, a silent one never does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::HashMap;
use tokio::sync::oneshot;

/// Each holds a socket and some kilobytes.
const MAX_HANDSHAKES: usize = 1_024;

/// From one IPv4 address or one IPv6 network, which many clients may share.
const MAX_OF_NETWORK: usize = 64;

/// In the order in which they began. Dropping a sender ends its handshake.
type OfNetwork = BTreeMap<u64, oneshot::Sender<()>>;

/// One per process.
#[derive(Debug, Default)]
pub(super) struct Handshakes(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    networks: HashMap<IpAddr, OfNetwork>,
    count: usize,
    begun: u64,
}

/// A handshake in progress.
#[derive(Debug)]
pub(super) struct Handshake {
    all: Arc<Handshakes>,
    network: IpAddr,
    number: u64,
    gives_way: oneshot::Receiver<()>,
}

impl Handshakes {
    pub(super) fn begin(self: &Arc<Self>, network: IpAddr) -> Handshake {
        let (sender, gives_way) = oneshot::channel();
        let mut state = self.lock();
        state.begun += 1;
        let number = state.begun;
        if state.networks.get(&network).is_some_and(|it| it.len() >= MAX_OF_NETWORK) {
            state.end_oldest(network);
        } else if state.count >= MAX_HANDSHAKES
            && let Some(largest) = state.largest()
        {
            state.end_oldest(largest);
        }
        state.networks.entry(network).or_default().insert(number, sender);
        state.count += 1;
        Handshake { all: Arc::clone(self), network, number, gives_way }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn largest(&self) -> Option<IpAddr> {
        self.networks.iter().max_by_key(|(_, handshakes)| handshakes.len()).map(|it| *it.0)
    }

    fn end_oldest(&mut self, network: IpAddr) {
        if let Some((number, _)) = self.networks.get(&network).and_then(OfNetwork::first_key_value)
        {
            self.remove(network, *number);
        }
    }

    fn remove(&mut self, network: IpAddr, number: u64) {
        let Some(handshakes) = self.networks.get_mut(&network) else { return };
        if handshakes.remove(&number).is_some() {
            self.count -= 1;
        }
        if handshakes.is_empty() {
            self.networks.remove(&network);
        }
    }
}

impl Handshake {
    /// Returns when it must end.
    pub(super) async fn gives_way(&mut self) {
        // Nothing is ever sent.
        drop((&mut self.gives_way).await);
    }
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.lock().remove(self.network, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: usize) -> IpAddr {
        std::net::Ipv4Addr::from_bits(u32::try_from(number).unwrap()).into()
    }

    fn has_given_way(handshake: &mut Handshake) -> bool {
        handshake.gives_way.try_recv() == Err(oneshot::error::TryRecvError::Closed)
    }

    #[test]
    fn with_too_many_in_all_the_address_with_the_most_gives_way() {
        let handshakes = Arc::<Handshakes>::default();
        let mut busy: Vec<_> = (0..3).map(|_| handshakes.begin(address(0))).collect();
        let mut single: Vec<_> =
            (1..=MAX_HANDSHAKES).map(|number| handshakes.begin(address(number))).collect();
        assert_eq!(handshakes.lock().count, MAX_HANDSHAKES);
        let count =
            |all: &mut [Handshake]| all.iter_mut().map(has_given_way).filter(|it| *it).count();
        assert_eq!((count(&mut busy), count(&mut single)), (2, 1));
    }
}
