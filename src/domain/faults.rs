//! The long-lived tasks by name, and the faults that a test injects into them: each panics once, at a chosen
//! point. Set by `TRIBUTARY_FAULTS` or a test; checked by the tasks at each round. In production there are
//! none.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Uplink;

type Predicate = Arc<dyn Fn(&Uplink) -> bool + Send + Sync>;

macro_rules! tasks {
    ($($(#[doc = $doc:literal])+ $task:ident = $name:literal,)+) => {
        /// What is supervised, and may panic.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Task {
            $($(#[doc = $doc])+ $task,)+
        }

        impl Task {
            /// In the order of their numbers.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$task),+];

            /// For the log, `tributary_task_panics_total` and `TRIBUTARY_FAULTS`.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$task => $name,)+
                }
            }
        }
    };
}

tasks! {
    /// The inbound loop; the fault is at a read.
    Ingest = "ingest",
    /// A sensor's actor; the fault is at a message.
    Actor = "actor",
    /// The supervisor of the sensors' actors.
    Supervisor = "supervisor",
    /// Look-ups of sensors.
    LookUp = "look_up",
    /// Storing when sensors were last seen.
    LastSeen = "last_seen",
    /// The writer's actor.
    Writer = "writer",
    /// The delivery of a batch.
    Delivery = "delivery",
    /// The outbox's actor.
    Outbox = "outbox",
    /// A round of the outbox.
    OutboxRound = "outbox_round",
    /// The publisher of configurations.
    Publisher = "publisher",
    /// The socket of a connection to the broker.
    BrokerSocket = "broker_socket",
    /// The replayer; the fault is in the middle of a page.
    Replayer = "replayer",
    /// Opening the writers' connections before they are needed.
    WriterConnections = "writer_connections",
    /// The fold of the roll-up's journal.
    Fold = "fold",
    /// The sums of the roll-up.
    RollUp = "rollup",
    /// Partitions and retention.
    Housekeeping = "housekeeping",
    /// The sizes of the tables, for the metrics.
    Census = "census",
    /// The hub of the event streams.
    Hub = "hub",
    /// The check of the rights of event streams.
    AccessWatch = "access_watch",
    /// The task that keeps the leader's lock.
    Leader = "leader",
    /// The task that knows the other instances.
    Peers = "peers",
    /// The task that relays events to the other instances.
    Relay = "relay",
    /// An HTTP request, and what it leaves running.
    Request = "request",
}

/// When to panic.
#[derive(Clone, Default)]
pub struct Faults {
    actor_panics: Option<Predicate>,
    countdowns: Option<Arc<[AtomicU64; Task::ALL.len()]>>,
}

impl Faults {
    /// A sensor's actor panics at each message that matches.
    pub fn actor_panics(condition: impl Fn(&Uplink) -> bool + Send + Sync + 'static) -> Self {
        Self { actor_panics: Some(Arc::new(condition)), countdowns: None }
    }

    /// Panics if the test injects a fault at this message.
    pub fn at_message(&self, uplink: &Uplink) {
        if let Some(condition) = &self.actor_panics {
            assert!(!condition(uplink), "a fault injected by a test");
        }
        self.at(Task::Actor);
    }

    /// Panics if the test injects a fault here.
    pub fn at(&self, task: Task) {
        let Some(countdowns) = &self.countdowns else { return };
        // 0 means never; only the step from 1 to 0 panics.
        let passed =
            countdowns[task as usize]
                .try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        assert!(passed != Ok(1), "a fault injected by a test: {task:?}");
    }
}

/// `actor=300,delivery=20`: the 300th message panics in its actor, the 20th batch in its delivery.
impl FromStr for Faults {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let countdowns: [AtomicU64; Task::ALL.len()] = Default::default();
        for part in text.split(',') {
            let fault = part.split_once('=').and_then(|(name, count)| {
                let task = Task::ALL.into_iter().find(|task| task.name() == name)?;
                Some((task, count.parse().ok()?))
            });
            let Some((task, count)) = fault else {
                let names = Task::ALL.map(|task| format!("{}=N", task.name())).join(", ");
                return Err(format!("{part:?} is none of {names}"));
            };
            countdowns[task as usize].store(count, Ordering::Relaxed);
        }
        Ok(Self { actor_panics: None, countdowns: Some(Arc::new(countdowns)) })
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Faults")
            .field("actor_panics", &self.actor_panics.is_some())
            .field("countdowns", &self.countdowns)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_once_at_its_count() {
        let faults: Faults = "delivery=2".parse().unwrap();
        let panics = |task| {
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| faults.at(task))).is_err()
        };
        assert!(!panics(Task::Actor));
        assert_eq!([(); 4].map(|()| panics(Task::Delivery)), [false, true, false, false]);
        assert!("delivery=2,roof=1".parse::<Faults>().is_err());
    }
}
