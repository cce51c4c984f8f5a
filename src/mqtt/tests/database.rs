//! The database of the tests: tables in memory, and a committer whose transactions end as the plan says.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::Semaphore;

use super::{CommitOutcome, LIMITS, Publication, REFUSED};
use crate::domain::{
    AckTokens, Batch, Items, Kind, Measurement, RawMessage, RejectionDigest, RowRef,
    SensorIdentifier, Tally, Timestamp, Uplink,
};
use crate::store::{Committed, CopyMode, Recovery, StoreError, Uncommitted};
use crate::wire::{Decoder, Topics};
use crate::writer::Commit;

pub(super) type Key = (SensorIdentifier, Timestamp, u64);

/// The contents of the database.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) rows: BTreeMap<&'static str, BTreeSet<Key>>,
    /// The row's identifier, by the message's digest and the item's index.
    pub(super) rejections: BTreeMap<(u128, Option<u32>), i64>,
    rejected_ever: i64,
}

impl Tables {
    /// One transaction, like the store's: copied directly, an existing row fails it.
    fn apply(&mut self, batch: &mut Batch, mode: CopyMode) -> Result<Tally, Recovery> {
        let mut tally = Tally::default();
        for uplink in batch.uplinks_mut() {
            let does_not_exist = |from| !self.rejections.values().any(|row| *row == from);
            if uplink.message.replayed_from.is_some_and(does_not_exist) {
                let item_count = uplink.set_already_handled();
                tally.duplicate(uplink.kind, item_count.into());
            }
        }
        if batch.uplinks().iter().any(|uplink| !refused(uplink).is_empty()) {
            return Err(Recovery::Isolate);
        }
        let sorted = Kind::ALL.map(|kind| (kind, batch.rows(kind)));
        if mode == CopyMode::Direct {
            let exists = |kind: Kind, row: &RowRef| {
                self.rows.get(kind.name()).is_some_and(|rows| rows.contains(&key(row)))
            };
            if sorted.iter().any(|(kind, rows)| rows.new.iter().any(|it| exists(*kind, it))) {
                return Err(Recovery::Stage);
            }
        }
        for (kind, rows) in &sorted {
            let table = self.rows.entry(kind.name()).or_default();
            let inserted = rows.all().iter().filter(|row| table.insert(key(row))).count();
            tally.stored(*kind, rows.offered, inserted as u64);
        }
        for uplink in batch.uplinks() {
            let replayed_from = uplink.message.replayed_from;
            if !uplink.rejections.iter().any(|it| it.item_index.is_none()) {
                self.rejections.retain(|_, row| Some(*row) != replayed_from);
            }
            for rejection in &uplink.rejections {
                let items = u64::from(rejection.item_count);
                if self.reject((rejection.digest.0, rejection.item_index))
                    && replayed_from.is_none()
                {
                    tally.rejected(rejection.kind, items);
                } else {
                    tally.duplicate(rejection.kind, items);
                }
            }
        }
        Ok(tally)
    }

    /// False if it is recorded already.
    fn reject(&mut self, key: (u128, Option<u32>)) -> bool {
        if self.rejections.contains_key(&key) {
            return false;
        }
        self.rejected_ever += 1;
        self.rejections.insert(key, self.rejected_ever);
        true
    }

    /// Whether every item of a message is a row or a recorded rejection.
    pub(super) fn hold(&self, publication: &Publication) -> bool {
        let uplink = decode(publication);
        let digest = digest(publication);
        if self.rejections.contains_key(&(digest, None)) {
            return true;
        }
        let refused = refused(&uplink);
        let stored = (0..uplink.items.len()).all(|item| {
            let (timestamp, content) = uplink.items.identity(item);
            let key = (sensor(publication.sensor), timestamp, content);
            refused.contains(&(item as u32))
                || self.rows.get(publication.kind.name()).is_some_and(|rows| rows.contains(&key))
        });
        let recorded = self.rejections.keys().filter(|(known, _)| *known == digest).count();
        stored && recorded == uplink.rejections.len() + refused.len()
    }
}

pub(super) fn key(row: &RowRef) -> Key {
    (row.sensor, row.timestamp, row.digest)
}

pub(super) fn digest(publication: &Publication) -> u128 {
    RejectionDigest::of(&topic(publication), publication.payload.as_bytes()).0
}

pub(super) fn sensor(number: u128) -> SensorIdentifier {
    SensorIdentifier(uuid::Uuid::from_u128(number))
}

pub(super) fn topic(publication: &Publication) -> String {
    Topics::new("").of(publication.kind, sensor(publication.sensor))
}

pub(super) fn decode(publication: &Publication) -> Box<Uplink> {
    let (ack_tokens, _lost) = AckTokens::new();
    let message = RawMessage::new(
        &topic(publication),
        publication.payload.as_bytes(),
        Timestamp::default(),
        false,
    );
    Decoder::new(Topics::new(""), LIMITS).decode(message, ack_tokens.issue(0))
}

/// The items that PostgreSQL refuses, by index among those that can be stored.
pub(super) fn refused(uplink: &Uplink) -> Vec<u32> {
    let Items::Measurements(items) = &uplink.items else { return Vec::new() };
    let value = |item: &Measurement| uplink.message.bytes(item.value);
    let refused = items.iter().zip(0..).filter(|(item, _)| contains(value(item), REFUSED));
    refused.map(|(_, row)| row).collect()
}

pub(super) fn contains(text: &[u8], wanted: &[u8]) -> bool {
    text.windows(wanted.len()).any(|it| it == wanted)
}

/// The committer. A transaction ends when the plan says how.
#[derive(Clone)]
pub(super) struct Database {
    pub(super) tables: Rc<RefCell<Tables>>,
    pub(super) outcomes: Rc<RefCell<VecDeque<CommitOutcome>>>,
    pub(super) gate: Arc<Semaphore>,
    /// Transactions that never answer: they need a crash.
    pub(super) stuck: Rc<RefCell<u32>>,
}

impl Commit for Database {
    async fn commit(
        &self,
        mut batch: Batch,
        mode: CopyMode,
    ) -> Result<Committed, Box<Uncommitted>> {
        match self.gate.acquire().await {
            Ok(permit) => permit.forget(),
            // The process has crashed.
            Err(_closed) => std::future::pending().await,
        }
        let outcome = self.outcomes.borrow_mut().pop_front().unwrap_or(CommitOutcome::Commits);
        let uncommitted = |batch, recovery| {
            let error = StoreError::Pretended(recovery);
            Err(Box::new(Uncommitted { batch, error }))
        };
        match outcome {
            CommitOutcome::Fails => return uncommitted(batch, Recovery::Retry),
            CommitOutcome::Panics => panic!("a fault of the plan's"),
            CommitOutcome::Commits | CommitOutcome::AnswerLost | CommitOutcome::NeverAnswers => {}
        }
        let applied = self.tables.borrow_mut().apply(&mut batch, mode);
        match (applied, outcome) {
            (Err(recovery), _) => uncommitted(batch, recovery),
            (Ok(_), CommitOutcome::AnswerLost) => uncommitted(batch, Recovery::Retry),
            (Ok(_), CommitOutcome::NeverAnswers) => {
                *self.stuck.borrow_mut() += 1;
                std::future::pending().await
            }
            (Ok(tally), _) => Ok(Committed::pretend_with(batch, tally)),
        }
    }

    async fn isolate(&self, batch: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        let [uplink] = batch.uplinks() else { unreachable!("one message is isolated") };
        Ok(refused(uplink).into_iter().map(|item| (item, "it is refused".into())).collect())
    }
}
