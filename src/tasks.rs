//! Supervision: every task that outlives a request runs by one of the three functions of [`Tasks`]. A panic is
//! logged as an error with the task's name, counted, and then the task is started again ([`Tasks::supervise`]),
//! or its caller decides ([`Tasks::watch`], [`Tasks::run_actor`]): it retries, or ends the process.
//!
//! Invariant: whatever is supervised reads its state from the tables again, or puts it in order when it
//! begins. The inbound loop and the actors cannot, so their panic ends the process: the broker keeps what is
//! not acknowledged.

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use actix::{Actor, Addr, Context};
use actix_rt::task::JoinHandle;
use futures_util::FutureExt as _;
use tracing::error;

use crate::domain::{Faults, Task, failures_after, pause};

/// A task has panicked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} panicked: {text}", .task.name())]
pub struct Panic {
    /// Which one.
    pub task: Task,
    /// Of the panic.
    pub text: String,
}

/// Runs tasks, and counts their panics.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Inner>);

#[derive(Default)]
struct Inner {
    faults: Faults,
    panics: [AtomicU64; Task::ALL.len()],
}

impl fmt::Debug for Tasks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Tasks").field(&self.0.panics).finish()
    }
}

impl Tasks {
    /// With faults that a test injects.
    pub fn new(faults: Faults) -> Self {
        Self(Arc::new(Inner { faults, panics: Default::default() }))
    }

    /// None in production.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// How often each task has panicked.
    pub fn panics(&self) -> impl Iterator<Item = (Task, u64)> {
        let counts = self.0.panics.iter().map(|count| count.load(Ordering::Relaxed));
        Task::ALL.into_iter().zip(counts)
    }

    /// Runs `work` until it returns; after a panic it is started again, with backoff.
    pub async fn supervise(&self, task: Task, mut work: impl AsyncFnMut()) {
        let mut failures = 0;
        loop {
            let started_at = Instant::now();
            if self.watch(task, work()).await.is_ok() {
                return;
            }
            failures = failures_after(failures, started_at.elapsed());
            tokio::time::sleep(pause(failures, rand::random())).await;
        }
    }

    /// Runs `work` to its end.
    /// A panic is logged and counted already.
    pub async fn watch<T>(&self, task: Task, work: impl Future<Output = T>) -> Result<T, Panic> {
        let mut work = Box::pin(work);
        let outcome = AssertUnwindSafe(work.as_mut()).catch_unwind().await;
        // When an actor's context is dropped, actix polls it once more: it can process messages, and panic again.
        let dropped = catch_unwind(AssertUnwindSafe(|| drop(work)));
        let outcome = outcome.map_err(|payload| self.record(task, &*payload));
        match dropped {
            Ok(()) => outcome,
            Err(payload) => Err(self.record(task, &*payload)),
        }
    }

    /// Starts an actor on this thread. A panic ends the actor; messages that are still in its mailbox are dropped.
    pub fn run_actor<A: Actor<Context = Context<A>>>(
        &self,
        task: Task,
        context: Context<A>,
        actor: A,
    ) -> (Addr<A>, JoinHandle<Result<(), Panic>>) {
        let running = context.into_future(actor);
        let (address, tasks) = (running.address(), self.clone());
        (address, actix_rt::spawn(async move { tasks.watch(task, running).await }))
    }

    fn record(&self, task: Task, payload: &(dyn Any + Send)) -> Panic {
        let text = match (payload.downcast_ref::<&str>(), payload.downcast_ref::<String>()) {
            (Some(text), _) => (*text).to_owned(),
            (None, Some(text)) => text.clone(),
            (None, None) => "no text".to_owned(),
        };
        error!(task = task.name(), text, "a task panicked");
        self.0.panics[task as usize].fetch_add(1, Ordering::Relaxed);
        Panic { task, text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix::Handler;

    fn count(tasks: &Tasks, task: Task) -> u64 {
        tasks.panics().find(|(it, _)| *it == task).unwrap().1
    }

    #[derive(actix::Message)]
    #[rtype(result = "()")]
    struct Hello;

    /// Panics at each message, those that are left when it is dropped included.
    struct PanickingActor;

    impl Actor for PanickingActor {
        type Context = Context<Self>;
    }

    impl Handler<Hello> for PanickingActor {
        type Result = ();

        fn handle(&mut self, Hello: Hello, _: &mut Context<Self>) {
            panic!("no {}", "greetings");
        }
    }

    #[actix_rt::test]
    async fn the_end_of_an_actor_is_reported_with_its_cause() {
        let tasks = Tasks::default();
        let (address, ended) = tasks.run_actor(Task::Writer, Context::new(), PanickingActor);
        let (one, other) = tokio::join!(address.send(Hello), address.send(Hello));
        assert!(one.is_err() && other.is_err());
        let panic = ended.await.unwrap().unwrap_err();
        assert_eq!(panic.to_string(), "writer panicked: no greetings");
        assert!(!address.connected() && count(&tasks, Task::Writer) > 0);
    }
}
