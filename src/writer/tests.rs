//! The writer with a scripted committer in place of the database.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::domain::{AckTokens, Batch, Health, Kind, Ledger, Part, RawMessage, Timestamp, Uplink};
use crate::metrics::Metrics;
use crate::store::{Committed, CopyMode, StoreError, Uncommitted};

/// The outcome of the next commit.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Commit,
    Unavailable,
    Panic,
}

/// Each commit waits for a permit of the test; after the scripted outcomes, all succeed.
#[derive(Clone)]
struct Scripted {
    fates: Rc<RefCell<VecDeque<Fate>>>,
    gate: Arc<Semaphore>,
    seen: Rc<RefCell<Vec<(usize, CopyMode)>>>,
}

impl Scripted {
    fn new(fates: &[Fate]) -> Self {
        Self {
            fates: Rc::new(RefCell::new(fates.iter().copied().collect())),
            gate: Arc::new(Semaphore::new(0)),
            seen: Rc::default(),
        }
    }
}

impl Commit for Scripted {
    async fn commit(&self, batch: Batch, mode: CopyMode) -> Result<Committed, Box<Uncommitted>> {
        self.seen.borrow_mut().push((batch.uplinks().len(), mode));
        self.gate.acquire().await.unwrap().forget();
        let fate = self.fates.borrow_mut().pop_front().unwrap_or(Fate::Commit);
        match fate {
            Fate::Commit => Ok(Committed::pretend(batch)),
            Fate::Unavailable => Err(Box::new(Uncommitted {
                batch,
                error: StoreError::PoolTimeout { waited: Duration::ZERO, last: None },
            })),
            Fate::Panic => panic!("a fault injected by the test"),
        }
    }

    async fn isolate(&self, _: &Batch) -> Result<Vec<(u32, String)>, StoreError> {
        unreachable!("nothing is refused here")
    }
}

struct Ignores;

impl Actor for Ignores {
    type Context = Context<Self>;
}

impl Handler<Acknowledged> for Ignores {
    type Result = ();
    fn handle(&mut self, _: Acknowledged, _: &mut Context<Self>) {}
}

impl Handler<Duplicates> for Ignores {
    type Result = ();
    fn handle(&mut self, _: Duplicates, _: &mut Context<Self>) {}
}

impl Handler<Deleted> for Ignores {
    type Result = ();
    fn handle(&mut self, _: Deleted, _: &mut Context<Self>) {}
}

struct Rig {
    writer: Addr<WriterActor<Scripted>>,
    committer: Scripted,
    settled: mpsc::UnboundedReceiver<Committed>,
    replayed: mpsc::UnboundedReceiver<Committed>,
    lost: mpsc::UnboundedReceiver<crate::domain::LostToken>,
    ack_tokens: AckTokens,
    health: Arc<Health>,
}

impl Rig {
    fn new(connections: u32, fates: &[Fate]) -> Self {
        let committer = Scripted::new(fates);
        let (settled, settled_receiver) = mpsc::unbounded_channel();
        let health = Arc::new(Health::default());
        let ignores = Ignores.start();
        let (replayed, replayed_receiver) = mpsc::unbounded_channel();
        let reports = Reports {
            settled,
            replayed,
            acknowledged: ignores.clone().recipient(),
            duplicates: ignores.clone().recipient(),
            deleted: [ignores.clone().recipient(), ignores.recipient()],
            subscriptions: crate::domain::Subscriptions::none(),
            health: Arc::clone(&health),
            flow: Arc::default(),
            metrics: Arc::new(Metrics::new(Arc::new(Ledger::default()))),
            tasks: crate::tasks::Tasks::default(),
        };
        let config = Config { connections, batch_items: 1_000, rejections_per_sensor_hour: 1_000 };
        let writer = WriterActor::new(config, committer.clone(), reports).start();
        let (ack_tokens, lost) = AckTokens::new();
        Self {
            writer,
            committer,
            settled: settled_receiver,
            replayed: replayed_receiver,
            lost,
            ack_tokens,
            health,
        }
    }

    async fn write(&self, sequences: std::ops::Range<u64>) {
        self.write_from(None, sequences).await;
    }

    async fn write_from(&self, replayed_from: Option<i64>, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            let mut message = RawMessage::new("t", b"", Timestamp::default(), false);
            message.replayed_from = replayed_from;
            let mut uplink = Uplink::new(message, self.ack_tokens.issue(sequence));
            uplink.kind = Some(Kind::Measurement);
            uplink.reject(crate::domain::Reason::NotJson, String::new());
            self.writer.send(Write(vec![Box::new(uplink)])).await.unwrap();
        }
    }

    fn open(&self) {
        self.committer.gate.add_permits(1_000);
    }

    async fn next(&mut self) -> Vec<u64> {
        sequences(self.settled.recv().await.unwrap())
    }

    async fn next_replayed(&mut self) -> Vec<u64> {
        sequences(self.replayed.recv().await.unwrap())
    }
}

fn sequences(committed: Committed) -> Vec<u64> {
    committed.ack_tokens.into_iter().map(crate::domain::AckToken::settle).collect()
}

#[actix_rt::test]
async fn replays_have_batches_of_their_own_and_take_turns() {
    let mut rig = Rig::new(1, &[]);
    rig.write(0..1).await;
    rig.write_from(Some(1), 10..12).await;
    rig.write(1..3).await;
    rig.open();
    assert_eq!(rig.next().await, [0]);
    assert_eq!(rig.next_replayed().await, [10, 11]);
    assert_eq!(rig.next().await, [1, 2]);
    let batches: Vec<usize> = rig.committer.seen.borrow().iter().map(|(size, _)| *size).collect();
    assert_eq!(batches, [1, 2, 2], "in this order");
}

#[actix_rt::test]
async fn nothing_is_settled_until_the_commit_returned() {
    let mut rig = Rig::new(1, &[]);
    rig.write(0..1).await;
    // The write has begun once the committer has seen it.
    while rig.committer.seen.borrow().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(rig.settled.try_recv().is_err());
    rig.open();
    assert_eq!(rig.next().await, [0]);
}

#[actix_rt::test]
async fn an_unavailable_database_is_retried_through_staging() {
    let mut rig = Rig::new(1, &[Fate::Unavailable, Fate::Unavailable]);
    rig.open();
    rig.write(0..1).await;
    assert_eq!(rig.next().await, [0]);
    assert_eq!(
        *rig.committer.seen.borrow(),
        [(1, CopyMode::Direct), (1, CopyMode::Staged), (1, CopyMode::Staged)]
    );
    assert!(rig.health.condition(Part::Writing).up);
}

#[actix_rt::test]
async fn a_panic_in_a_delivery_loses_only_its_tokens() {
    let mut rig = Rig::new(1, &[Fate::Panic]);
    rig.open();
    rig.write(0..1).await;
    assert_eq!(rig.lost.recv().await.unwrap().sequence, 0);
    rig.write(1..2).await;
    assert_eq!(rig.next().await, [1]);
}
