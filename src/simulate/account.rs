//! What was published against what the service's ledger says became of it. Pure; asked by the run
//! while it waits for the service, and by the summary for the verdict.

use std::fmt;

use super::service::{Entry, Ledger};

/// One kind of items, in one run.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Account {
    /// What the fleet said.
    pub published: u64,
    /// What reached the service meanwhile.
    pub received: u64,
    /// What became rows.
    pub committed: u64,
    /// What had been there before.
    pub duplicate: u64,
    /// What was recorded as rejected.
    pub rejected: u64,
    /// What the service still had in hand.
    pub in_flight: u64,
}

/// Whether every item can be found again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Published = committed + rejected.
    Exact,
    /// Some of it had been there before: a series that was played again.
    ExactWithDuplicates,
    /// So many items are neither committed nor rejected.
    Missing(u64),
    /// The service has taken so many more than were published: somebody else publishes too, and
    /// nothing can be told.
    Foreign(u64),
    /// The ledger cannot be compared, and why.
    Unknown(String),
}

impl Verdict {
    /// Whether every item is accounted for.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Exact | Self::ExactWithDuplicates)
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => {
                formatter.write_str("every item is accounted for: published = committed + rejected")
            }
            Self::ExactWithDuplicates => formatter.write_str(
                "every item is accounted for: published = committed + rejected + there before",
            ),
            Self::Missing(items) => write!(
                formatter,
                "NOT accounted for: {items} items are neither committed nor rejected"
            ),
            Self::Foreign(items) => write!(
                formatter,
                "NOT accounted for: the service has taken {items} items more than were published; \
                 somebody else publishes too"
            ),
            Self::Unknown(why) => write!(formatter, "NOT accounted for: {why}"),
        }
    }
}

impl Account {
    /// The difference that a run made. None where the service counts less than before: it has
    /// been restarted, and its ledger with it.
    pub(super) fn between(published: u64, before: Entry, after: Entry) -> Option<Self> {
        Some(Self {
            published,
            received: after.received.checked_sub(before.received)?,
            committed: after.committed.checked_sub(before.committed)?,
            duplicate: after.duplicate.checked_sub(before.duplicate)?,
            rejected: after.rejected.checked_sub(before.rejected)?,
            in_flight: after.in_flight,
        })
    }

    /// What the service has finished with, as far as it can be ours.
    fn finished(&self) -> u64 {
        self.published.min(self.committed + self.rejected + self.duplicate)
    }

    fn verdict(&self, duplicates_count: bool) -> Verdict {
        let stored = self.committed + self.rejected;
        if stored == self.published {
            return Verdict::Exact;
        }
        if let Some(more) = stored.checked_sub(self.published) {
            return Verdict::Foreign(more);
        }
        let missing = self.published - stored;
        match missing.checked_sub(self.duplicate) {
            // Duplicates over and above are retransmissions of what is stored.
            None | Some(0) if duplicates_count => Verdict::ExactWithDuplicates,
            Some(rest) if duplicates_count => Verdict::Missing(rest),
            _ => Verdict::Missing(missing),
        }
    }
}

/// The whole run, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Accounts {
    /// `measurements/…`
    pub measurements: Account,
    /// `log-messages/…`
    pub log_messages: Account,
    /// `heartbeats/…`
    pub heartbeats: Account,
}

/// Items published, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Published {
    /// `measurements/…`
    pub measurements: u64,
    /// `log-messages/…`
    pub log_messages: u64,
    /// `heartbeats/…`
    pub heartbeats: u64,
}

impl Accounts {
    /// The difference that a run made; none where the service has been restarted.
    pub(super) fn between(published: Published, before: &Ledger, after: &Ledger) -> Option<Self> {
        let between = Account::between;
        Some(Self {
            measurements: between(published.measurements, before.measurements, after.measurements)?,
            log_messages: between(published.log_messages, before.log_messages, after.log_messages)?,
            heartbeats: between(published.heartbeats, before.heartbeats, after.heartbeats)?,
        })
    }

    /// By kind, named for people.
    #[must_use]
    pub const fn all(&self) -> [(&'static str, Account); 3] {
        [
            ("measurements", self.measurements),
            ("log messages", self.log_messages),
            ("heartbeats", self.heartbeats),
        ]
    }

    /// Whether nothing more is to come: all has arrived, and none is in hand.
    pub(super) fn is_settled(&self) -> bool {
        let settled = |it: Account| it.received >= it.published && it.in_flight == 0;
        self.all().into_iter().all(|(_, account)| settled(account))
    }

    /// Whether all of it is stored, so that waiting longer can change nothing for the better.
    pub(super) fn is_stored(&self) -> bool {
        let stored = |it: Account| it.committed + it.rejected >= it.published;
        self.is_settled() && self.all().into_iter().all(|(_, account)| stored(account))
    }

    /// How far the service has come with what is ours.
    pub(super) fn finished(&self) -> u64 {
        self.all().into_iter().map(|(_, account)| account.finished()).sum()
    }

    /// Whether every item can be found again; a series played before leaves duplicates.
    pub(super) fn verdict(&self, replayed: bool) -> Verdict {
        let verdicts = [
            self.measurements.verdict(replayed),
            self.log_messages.verdict(false),
            self.heartbeats.verdict(false),
        ];
        // What is missing weighs more than what is too much: the sums of the worst.
        let missing: u64 = sum(&verdicts, |it| if let Verdict::Missing(n) = it { *n } else { 0 });
        if missing > 0 {
            return Verdict::Missing(missing);
        }
        let foreign: u64 = sum(&verdicts, |it| if let Verdict::Foreign(n) = it { *n } else { 0 });
        if foreign > 0 {
            return Verdict::Foreign(foreign);
        }
        verdicts[0].clone()
    }
}

fn sum(verdicts: &[Verdict], count: impl Fn(&Verdict) -> u64) -> u64 {
    verdicts.iter().map(count).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(published: u64, committed: u64, duplicate: u64, rejected: u64) -> Account {
        let received = committed + duplicate + rejected;
        Account { published, received, committed, duplicate, rejected, in_flight: 0 }
    }

    fn verdict(measurements: Account, replayed: bool) -> Verdict {
        Accounts { measurements, ..Accounts::default() }.verdict(replayed)
    }

    #[test]
    fn good_and_bad_items_make_up_what_was_published() {
        assert_eq!(verdict(account(100, 95, 0, 5), false), Verdict::Exact);
        assert_eq!(verdict(account(100, 100, 7, 0), false), Verdict::Exact, "sent again");
    }

    #[test]
    fn what_is_missing_is_counted() {
        assert_eq!(verdict(account(100, 90, 0, 5), false), Verdict::Missing(5));
        assert_eq!(verdict(account(100, 90, 5, 5), false), Verdict::Missing(5));
        assert_eq!(verdict(account(100, 90, 5, 2), true), Verdict::Missing(3));
        assert!(!Verdict::Missing(5).is_good());
    }

    #[test]
    fn a_series_may_have_been_there_before() {
        assert_eq!(verdict(account(100, 0, 100, 0), true), Verdict::ExactWithDuplicates);
        assert_eq!(verdict(account(100, 60, 45, 0), true), Verdict::ExactWithDuplicates);
        assert_eq!(verdict(account(100, 100, 0, 0), true), Verdict::Exact);
    }

    #[test]
    fn somebody_else_s_items_cannot_be_told_from_ours() {
        assert_eq!(verdict(account(100, 103, 0, 0), false), Verdict::Foreign(3));
    }

    #[test]
    fn a_restarted_service_is_noticed() {
        let before = Entry { received: 10, committed: 10, ..Entry::default() };
        assert_eq!(Account::between(5, before, Entry::default()), None);
    }

    #[test]
    fn settled_when_all_has_come_and_none_is_in_hand() {
        let measurements = account(100, 95, 0, 5);
        let settled = |measurements| Accounts { measurements, ..Accounts::default() }.is_settled();
        assert!(settled(measurements));
        assert!(!settled(Account { in_flight: 1, ..measurements }));
        assert!(!settled(Account { received: 99, ..measurements }));
    }
}
