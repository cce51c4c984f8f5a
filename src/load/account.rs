//! What was published, in items by kind, and what became of configurations. Kept by the publisher, compared with the
//! service's ledger by `simulate` and `bench`. Pure.

use std::ops::AddAssign;

use ntex_bytes::{ByteString, Bytes};

use crate::domain::Kind;

/// A message to publish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Message {
    pub(crate) topic: ByteString,
    pub(crate) payload: Bytes,
    pub(crate) sent: Sent,
}

/// What one message adds to the account.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Sent {
    pub(crate) kind: Kind,
    /// As the service counts them: a payload that is broken as a whole is one.
    pub(crate) items: u32,
    /// Those of them that the service must reject.
    pub(crate) bad: u32,
    /// A repetition of an earlier message.
    pub(crate) copy: bool,
}

impl Sent {
    /// Good items, sent for the first time.
    pub(crate) const fn good(kind: Kind, items: u32) -> Self {
        Self { kind, items, bad: 0, copy: false }
    }
}

/// Items of one kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct ItemCounts {
    /// All, including copies and bad ones.
    pub(crate) published: u64,
    /// Good ones, each once: the rows that must exist.
    pub(crate) distinct: u64,
    /// Bad ones, each once: the rejections that must exist.
    pub(crate) bad: u64,
}

/// Everything that was published.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Account {
    pub(crate) messages: u64,
    /// In the order of [`Kind::ALL`].
    pub(crate) kinds: [ItemCounts; Kind::ALL.len()],
}

impl Account {
    pub(crate) fn add(&mut self, sent: Sent) {
        self.messages += 1;
        let items = &mut self.kinds[sent.kind as usize];
        items.published += u64::from(sent.items);
        if !sent.copy {
            items.distinct += u64::from(sent.items - sent.bad);
            items.bad += u64::from(sent.bad);
        }
    }

    pub(crate) fn items(&self) -> u64 {
        self.kinds.iter().map(|items| items.published).sum()
    }

    pub(crate) fn distinct(&self) -> u64 {
        self.kinds.iter().map(|items| items.distinct).sum()
    }

    pub(crate) fn bad(&self) -> u64 {
        self.kinds.iter().map(|items| items.bad).sum()
    }
}

impl AddAssign for Account {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        for (mine, theirs) in self.kinds.iter_mut().zip(other.kinds) {
            mine.published += theirs.published;
            mine.distinct += theirs.distinct;
            mine.bad += theirs.bad;
        }
    }
}

/// What became of the configurations that sensors received.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Configurations {
    pub(crate) applied: u64,
    /// They asked to be rejected.
    pub(crate) rejected: u64,
    /// They were no configurations; nothing is acknowledged.
    pub(crate) malformed: u64,
}
