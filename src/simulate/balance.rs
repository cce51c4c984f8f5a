//! Compares what was published with the service's ledger. Used while the run waits for the service, and for the final
//! check. Pure.

use std::fmt;

use crate::domain::{LedgerEntry, LedgerSnapshot};
use crate::load::{Account, Ledgers, count};

/// Items of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Balance {
    pub(super) published: u64,
    /// The difference that the run made; `in_flight` is the service's in the end.
    pub(super) ledger: LedgerEntry,
}

/// Of each kind, in the order of the ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Balances(pub(super) [Balance; 3]);

/// Whether every item is accounted for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum LedgerCheck {
    Exact,
    /// Part of a replayed series had been stored before.
    ExactWithDuplicates,
    /// Items that are neither committed nor rejected.
    Missing(u64),
    /// Items that the service settled in excess: other publishers are active, so nothing can be concluded.
    Foreign(u64),
    /// Why the ledger cannot be compared.
    Unknown(String),
}

impl LedgerCheck {
    /// Whether nothing is missing. Beside other publishers that is all that the ledger can show.
    pub(super) const fn is_good(&self) -> bool {
        matches!(self, Self::Exact | Self::ExactWithDuplicates | Self::Foreign(_))
    }
}

impl fmt::Display for LedgerCheck {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const GOOD: &str = "every item is accounted for: published = committed + rejected";
        match self {
            Self::Exact => out.write_str(GOOD),
            Self::ExactWithDuplicates => write!(out, "{GOOD} + duplicates of earlier runs"),
            Self::Missing(items) => {
                let items = count(*items);
                write!(out, "NOT accounted for: {items} items are neither committed nor rejected")
            }
            Self::Foreign(items) => write!(
                out,
                "nothing is missing: the service settled all that was published, and {} items of other publishers",
                count(*items)
            ),
            Self::Unknown(why) => write!(out, "NOT accounted for: {why}"),
        }
    }
}

impl Balance {
    const fn between(published: u64, before: LedgerEntry, after: LedgerEntry) -> Self {
        let ledger = LedgerEntry {
            received: after.received.saturating_sub(before.received),
            committed: after.committed.saturating_sub(before.committed),
            duplicate: after.duplicate.saturating_sub(before.duplicate),
            rejected: after.rejected.saturating_sub(before.rejected),
            ..after
        };
        Self { published, ledger }
    }

    const fn stored(&self) -> u64 {
        self.ledger.committed + self.ledger.rejected
    }
}

impl Balances {
    /// Of the instances of `after`: one that has joined began with an empty ledger, one that has ended took its with it.
    pub(super) fn between(account: &Account, before: &Ledgers, after: &Ledgers) -> Self {
        let before: LedgerSnapshot = after.keys().filter_map(|it| before.get(it)).copied().sum();
        let after: LedgerSnapshot = after.values().copied().sum();
        let (before, after, mut balances) = (before.entries(), after.entries(), Self::default());
        for (kind, balance) in balances.0.iter_mut().enumerate() {
            let published = account.kinds[kind].published;
            *balance = Balance::between(published, before[kind].1, after[kind].1);
        }
        balances
    }

    /// Whether everything has arrived, and none is in flight.
    pub(super) fn are_settled(&self) -> bool {
        self.0.iter().all(|it| it.ledger.received >= it.published && it.ledger.in_flight == 0)
    }

    /// Whether everything is stored, so that waiting cannot improve the check.
    pub(super) fn are_stored(&self) -> bool {
        self.are_settled() && self.0.iter().all(|it| it.stored() >= it.published)
    }

    /// Items that the service has settled, as far as they can be ours.
    pub(super) fn finished(&self) -> u64 {
        self.0.iter().map(|it| it.published.min(it.stored() + it.ledger.duplicate)).sum()
    }

    /// A series that was published before leaves duplicates.
    pub(super) fn check(&self, is_replay: bool) -> LedgerCheck {
        let (mut missing, mut foreign, mut duplicates) = (0, 0, 0);
        for (index, it) in self.0.iter().enumerate() {
            foreign += it.stored().saturating_sub(it.published);
            let mut not_stored = it.published.saturating_sub(it.stored());
            if is_replay && index == 0 {
                duplicates = not_stored.min(it.ledger.duplicate);
                not_stored -= duplicates;
            }
            missing += not_stored;
        }
        match (missing, foreign, duplicates) {
            (0, 0, 0) => LedgerCheck::Exact,
            (0, 0, _) => LedgerCheck::ExactWithDuplicates,
            (0, ..) => LedgerCheck::Foreign(foreign),
            _ => LedgerCheck::Missing(missing),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(published: u64, committed: u64, duplicate: u64, rejected: u64) -> Balance {
        let received = committed + duplicate + rejected;
        let ledger =
            LedgerEntry { received, committed, duplicate, rejected, ..LedgerEntry::default() };
        Balance { published, ledger }
    }

    fn of_measurements(balance: Balance) -> Balances {
        Balances([balance, Balance::default(), Balance::default()])
    }

    #[test]
    fn the_check_counts_missing_and_foreign_items() {
        for (balance, is_replay, expected) in [
            (balance(100, 95, 0, 5), false, LedgerCheck::Exact),
            // Sent again by the broker or by us.
            (balance(100, 100, 7, 0), false, LedgerCheck::Exact),
            (balance(100, 90, 0, 5), false, LedgerCheck::Missing(5)),
            (balance(100, 90, 5, 5), false, LedgerCheck::Missing(5)),
            (balance(100, 90, 5, 2), true, LedgerCheck::Missing(3)),
            (balance(100, 0, 100, 0), true, LedgerCheck::ExactWithDuplicates),
            (balance(100, 60, 45, 0), true, LedgerCheck::ExactWithDuplicates),
            (balance(100, 100, 0, 0), true, LedgerCheck::Exact),
            (balance(100, 103, 0, 0), false, LedgerCheck::Foreign(3)),
        ] {
            assert_eq!(of_measurements(balance).check(is_replay), expected, "{balance:?}");
            assert_eq!(expected.is_good(), !matches!(expected, LedgerCheck::Missing(_)));
        }
    }

    #[test]
    fn ledgers_are_compared_by_instance() {
        let ledgers = |counts: &[(u128, u64)]| -> Ledgers {
            let ledger = |committed| LedgerSnapshot {
                measurements: balance(0, committed, 0, 0).ledger,
                ..LedgerSnapshot::default()
            };
            counts.iter().map(|(id, count)| (uuid::Uuid::from_u128(*id), ledger(*count))).collect()
        };
        let before = ledgers(&[(1, 1_000), (2, 50)]);
        for (after, committed) in [
            (ledgers(&[(1, 1_010), (2, 50)]), 10),
            // One has joined.
            (ledgers(&[(1, 1_010), (2, 51), (3, 7)]), 18),
            // One has ended, which had counted more than all others.
            (ledgers(&[(2, 55)]), 5),
            // One was restarted.
            (ledgers(&[(2, 55), (4, 3)]), 8),
        ] {
            let balances = Balances::between(&Account::default(), &before, &after);
            assert_eq!(balances.0[0].ledger.committed, committed, "{after:?}");
        }
    }

    #[test]
    fn items_in_flight_are_waited_for() {
        let mut balances = of_measurements(balance(100, 94, 1, 5));
        assert!(balances.are_settled() && !balances.are_stored());
        balances.0[0].ledger.in_flight = 1;
        assert!(!balances.are_settled());
    }
}
