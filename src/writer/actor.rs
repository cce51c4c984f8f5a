//! The writer: collects messages while earlier ones are being written, and starts a delivery for
//! each batch. Sensor actors send to it; the inbound loop hears what was committed.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix::{Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, WrapFuture as _};
use tracing::error;

use super::Config;
use super::budget::RejectionBudget;
use super::delivery::{Commit, Delivery, Reports};
use super::policy::{self, Load, Next};
use super::protocol::{Begin, Write};
use super::recent::Recent;
use crate::domain::{Batch, Timestamp};

/// Its permits are the connections of the pool: so many deliveries run at once, and no more.
#[derive(Debug)]
pub struct WriterActor<C> {
    committer: C,
    config: Config,
    reports: Reports,
    budget: Rc<RefCell<RejectionBudget>>,
    recent: Recent,
    waiting: Batch,
    replays: Batch,
    writing: u32,
    replaying: bool,
    replayed_last: bool,
    begins: bool,
    rests: bool,
}

impl<C: Commit> WriterActor<C> {
    /// Writes by this committer, and reports to these.
    #[must_use]
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
            begins: false,
            rests: false,
        }
    }

    fn begin(&mut self, context: &mut Context<Self>) {
        while let Some(next) = policy::next(self.load()) {
            self.replayed_last = next == Next::Replayed;
            let (batch, reports) = match next {
                Next::Delivered => (self.take_delivered(), self.reports.clone()),
                Next::Replayed => (self.take_replayed(), self.reports.for_replays()),
            };
            self.writing += 1;
            self.reports.metrics.batches_writing.set(self.writing.into());
            let budget = Rc::clone(&self.budget);
            let delivery = Delivery::new(self.committer.clone(), reports, budget);
            // A task of its own: a panic in it loses this batch's ack tokens, which is noticed where
            // they were written, and not the actor.
            let begun = Instant::now();
            let delivered = actix_rt::spawn(delivery.deliver(batch));
            context.spawn(delivered.into_actor(self).map(move |outcome, writer, context| {
                if let Err(failure) = outcome {
                    error!(%failure, "a delivery failed; its messages will be delivered again");
                }
                writer.writing -= 1;
                writer.reports.metrics.batches_writing.set(writer.writing.into());
                match next {
                    Next::Delivered => writer.rest(policy::rest(begun.elapsed()), context),
                    Next::Replayed => {
                        writer.replaying = false;
                        writer.begin(context);
                    }
                }
            }));
        }
        let oldest = self.waiting.uplinks().first().map(|uplink| uplink.message.received_at);
        self.reports.metrics.writer_oldest.set(oldest);
        let (messages, items) = (self.waiting.uplinks().len(), self.waiting.item_count());
        self.reports.metrics.writer_waiting_items.set(items as i64);
        self.reports.flow.queue(messages, items, self.writing);
    }

    fn load(&self) -> Load {
        Load {
            waiting_items: self.waiting.item_count(),
            replays_wait: !self.replays.is_empty(),
            writing: self.writing,
            replaying: self.replaying,
            replayed_last: self.replayed_last,
            connections: self.config.connections,
            rests: self.rests,
        }
    }

    fn take_delivered(&mut self) -> Batch {
        let mut batch = self.waiting.take(self.config.batch_items, policy::BATCH_BYTES);
        let beyond = self.budget.borrow_mut().apply(&mut batch, Timestamp::now());
        self.reports.metrics.rejections_over_bound.inc_by(beyond);
        self.recent.tell_apart(&mut batch);
        batch
    }

    /// No budget bounds what a replay refuses: that is recorded already.
    fn take_replayed(&mut self) -> Batch {
        self.replaying = true;
        let items = self.config.batch_items.min(policy::REPLAY_ITEMS);
        self.replays.take(items, policy::BATCH_BYTES)
    }

    /// Lets messages gather, and begins again.
    fn rest(&mut self, rest: Duration, context: &mut Context<Self>) {
        if !self.rests {
            self.rests = true;
            context.run_later(rest, |writer, context| {
                writer.rests = false;
                writer.begin(context);
            });
        }
        self.begin(context);
    }
}

impl<C: Commit> Actor for WriterActor<C> {
    type Context = Context<Self>;
}

impl<C: Commit> Handler<Write> for WriterActor<C> {
    type Result = ();

    /// Starts nothing by itself: behind this message others may be waiting in the mailbox, and they
    /// belong into the same batch.
    fn handle(&mut self, Write(uplinks): Write, context: &mut Context<Self>) {
        for uplink in uplinks {
            // Apart from each other: a replay must neither hold up what is delivered nor be mixed
            // with it in one account.
            let batch = match uplink.message.replayed_from {
                None => &mut self.waiting,
                Some(_) => &mut self.replays,
            };
            batch.push(uplink);
        }
        if !self.begins {
            self.begins = true;
            context.notify(Begin);
        }
    }
}

impl<C: Commit> Handler<Begin> for WriterActor<C> {
    type Result = ();

    fn handle(&mut self, Begin: Begin, context: &mut Context<Self>) {
        self.begins = false;
        self.begin(context);
    }
}
