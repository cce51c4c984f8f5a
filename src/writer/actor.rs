//! The writer's actor: collects messages while batches are being written, and starts a delivery for
//! each batch. The sensors' actors send to it; its memory is bounded by the inbound window and by a
//! page of a replay. At most one delivery per connection of the pool runs at once.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use tracing::warn;

use super::Config;
use super::budget::RejectionBudget;
use super::delivery::{Commit, Delivery, Reports};
use super::policy::{self, Load, Next};
use super::protocol::{StartBatches, Write};
use super::recent::Recent;
use crate::domain::{Batch, Task, Timestamp};

/// The writer.
#[derive(Debug)]
pub struct WriterActor<C> {
    committer: C,
    config: Config,
    reports: Reports,
    budget: Rc<RefCell<RejectionBudget>>,
    recent: Recent,
    waiting: Batch,
    /// Separate from `waiting`: a replay must not delay new messages, and is reported to the replayer.
    replays: Batch,
    /// Running deliveries, including one of a replay.
    writing: u32,
    replaying: bool,
    replayed_last: bool,
    /// [`StartBatches`] is in the mailbox.
    starting: bool,
    resting: bool,
}

impl<C: Commit> WriterActor<C> {
    /// Not started yet.
    pub fn new(config: Config, committer: C, reports: Reports) -> Self {
        let budget = RejectionBudget::new(config.rejections_per_sensor_hour);
        Self {
            committer,
            config,
            reports,
            budget: Rc::new(RefCell::new(budget)),
            recent: Recent::new(),
            waiting: Batch::default(),
            replays: Batch::default(),
            writing: 0,
            replaying: false,
            replayed_last: false,
            starting: false,
            resting: false,
        }
    }

    fn start_batches(&mut self, context: &mut Context<Self>) {
        while let Some(next) = policy::next(self.load()) {
            self.replayed_last = next == Next::Replayed;
            let (batch, reports) = match next {
                Next::Delivered => (self.take_delivered(), self.reports.clone()),
                Next::Replayed => (self.take_replayed(), self.reports.for_replays()),
            };
            self.set_writing(self.writing + 1);
            let budget = Rc::clone(&self.budget);
            let delivery = Delivery::new(self.committer.clone(), reports, budget);
            let started_at = Instant::now();
            let messages = batch.uplinks().len();
            // A task of its own: a panic in it loses the tokens of this batch, not the actor.
            let tasks = self.reports.tasks.clone();
            let delivered = actix_rt::spawn(async move {
                tasks.watch(Task::Delivery, delivery.deliver(batch)).await
            });
            context.spawn(delivered.into_actor(self).map(move |outcome, writer, context| {
                if !matches!(outcome, Ok(Ok(()))) {
                    warn!("a batch was lost; the broker will deliver its messages again");
                }
                writer.set_writing(writer.writing - 1);
                match next {
                    Next::Delivered => {
                        writer.rest(policy::rest(started_at.elapsed(), messages), context)
                    }
                    Next::Replayed => writer.replaying = false,
                }
                writer.start_batches(context);
            }));
        }
        let oldest = self.waiting.uplinks().first().map(|uplink| uplink.message.received_at);
        self.reports.metrics.writer_oldest.set(oldest);
        let (messages, items) = (self.waiting.uplinks().len(), self.waiting.item_count());
        self.reports.metrics.writer_waiting_items.set(items as i64);
        self.reports.flow.queue(messages, items, self.writing);
    }

    fn set_writing(&mut self, writing: u32) {
        self.writing = writing;
        self.reports.metrics.batches_writing.set(writing.into());
    }

    fn load(&self) -> Load {
        Load {
            // A message without items counts as one: its PUBACK waits for a commit, too.
            waiting_items: self.waiting.item_count().max(self.waiting.uplinks().len()),
            replays_wait: !self.replays.is_empty(),
            writing: self.writing,
            replaying: self.replaying,
            replayed_last: self.replayed_last,
            connections: self.config.connections,
            resting: self.resting,
        }
    }

    fn take_delivered(&mut self) -> Batch {
        let mut batch = self.waiting.take(self.config.batch_items, policy::BATCH_BYTES);
        let over_limit = self.budget.borrow_mut().apply(&mut batch, Timestamp::now());
        self.reports.metrics.rejections_over_bound.inc_by(over_limit);
        self.recent.mark_repeated(&mut batch);
        batch
    }

    /// No budget applies, because rejections of a replay are stored already.
    fn take_replayed(&mut self) -> Batch {
        self.replaying = true;
        let items = self.config.batch_items.min(policy::REPLAY_ITEMS);
        self.replays.take(items, policy::BATCH_BYTES)
    }

    /// Lets messages collect before the next batch.
    fn rest(&mut self, rest: Duration, context: &mut Context<Self>) {
        if !self.resting && !rest.is_zero() {
            self.resting = true;
            context.run_later(rest, |writer, context| {
                writer.resting = false;
                writer.start_batches(context);
            });
        }
    }
}

impl<C: Commit> Actor for WriterActor<C> {
    type Context = Context<Self>;
}

impl<C: Commit> Handler<Write> for WriterActor<C> {
    type Result = ();

    /// Does not start a batch yet: later messages in the mailbox belong to the same batch.
    fn handle(&mut self, Write(uplinks): Write, context: &mut Context<Self>) {
        self.reports.tasks.faults().at(Task::Writer);
        for uplink in uplinks {
            let batch = match uplink.message.replayed_from {
                None => &mut self.waiting,
                Some(_) => &mut self.replays,
            };
            batch.push(uplink);
        }
        if !self.starting {
            self.starting = true;
            context.notify(StartBatches);
        }
    }
}

impl<C: Commit> Handler<StartBatches> for WriterActor<C> {
    type Result = ();

    fn handle(&mut self, StartBatches: StartBatches, context: &mut Context<Self>) {
        self.starting = false;
        self.start_batches(context);
    }
}
