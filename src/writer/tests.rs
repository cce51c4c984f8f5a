//! The writer with a scripted committer in place of the database.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;

use actix::{Actor, Addr, Context, Handler};
use tokio::sync::{Semaphore, mpsc};

use super::*;
use crate::domain::{AckTokens, Batch, Kind, Ledger, RawMessage, Timestamp, Uplink};
use crate::metrics::Metrics;
use crate::store::{Committed, CopyMode, StoreError, Uncommitted};

/// Each commit waits for a permit of the test.
#[derive(Clone)]
struct Scripted {
    /// The next commit panics.
    panics: Rc<Cell<bool>>,
    gate: Arc<Semaphore>,
    has_begun: Rc<Cell<bool>>,
}

impl Commit for Scripted {
    async fn commit(&self, batch: Batch, _: CopyMode) -> Result<Committed, Box<Uncommitted>> {
        self.has_begun.set(true);
        self.gate.acquire().await.unwrap().forget();
        assert!(!self.panics.take(), "a fault injected by the test");
        Ok(Committed::pretend(batch))
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
    lost: mpsc::UnboundedReceiver<crate::domain::LostToken>,
    ack_tokens: AckTokens,
}

impl Rig {
    fn new(panics: bool) -> Self {
        let committer = Scripted {
            panics: Rc::new(Cell::new(panics)),
            gate: Arc::new(Semaphore::new(0)),
            has_begun: Rc::default(),
        };
        let (settled, settled_receiver) = mpsc::unbounded_channel();
        let ignores = Ignores.start();
        let reports = Reports {
            settled,
            replayed: mpsc::unbounded_channel().0,
            acknowledged: ignores.clone().recipient(),
            duplicates: ignores.clone().recipient(),
            deleted: [ignores.clone().recipient(), ignores.recipient()],
            subscriptions: crate::domain::Subscriptions::none(),
            health: Arc::default(),
            flow: Arc::default(),
            metrics: Arc::new(Metrics::new(Arc::new(Ledger::default()))),
            tasks: crate::tasks::Tasks::default(),
        };
        let config =
            Config { connections: 1, batch_items: 1_000, rejections_per_sensor_hour: 1_000 };
        let writer = WriterActor::new(config, committer.clone(), reports).start();
        let (ack_tokens, lost) = AckTokens::new();
        Self { writer, committer, settled: settled_receiver, lost, ack_tokens }
    }

    async fn write(&self, sequences: std::ops::Range<u64>) {
        for sequence in sequences {
            let message = RawMessage::new("t", b"", Timestamp::default(), false);
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
        let committed = self.settled.recv().await.unwrap();
        committed.ack_tokens.into_iter().map(crate::domain::AckToken::settle).collect()
    }
}

#[actix_rt::test]
async fn nothing_is_settled_until_the_commit_returned() {
    let mut rig = Rig::new(false);
    rig.write(0..1).await;
    while !rig.committer.has_begun.get() {
        tokio::task::yield_now().await;
    }
    assert!(rig.settled.try_recv().is_err());
    rig.open();
    assert_eq!(rig.next().await, [0]);
}

#[actix_rt::test]
async fn a_panic_in_a_delivery_loses_only_its_tokens() {
    let mut rig = Rig::new(true);
    rig.open();
    rig.write(0..1).await;
    assert_eq!(rig.lost.recv().await.unwrap().sequence, 0);
    rig.write(1..2).await;
    assert_eq!(rig.next().await, [1]);
}
