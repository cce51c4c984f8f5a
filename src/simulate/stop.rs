//! Ctrl-C: the first one ends the publishing, the second one the waiting. Listened to for the whole
//! run, so that the summary is printed whatever happens.

use tokio::sync::watch;
use tracing::info;

/// How much of the run is called off.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Stop {
    /// Nothing.
    No,
    /// Say nothing more; wait for what has been said.
    Speaking,
    /// Wait for nothing either.
    Now,
}

/// Turns Ctrl-C into [`Stop`]; ends with the run.
#[derive(Debug)]
pub(super) struct Switch {
    receiver: watch::Receiver<Stop>,
    task: tokio::task::JoinHandle<()>,
}

impl Switch {
    /// Listens from now on.
    pub(super) fn listen() -> Self {
        let (sender, receiver) = watch::channel(Stop::No);
        let task = actix_rt::spawn(async move {
            for (stop, note) in [
                (
                    Stop::Speaking,
                    "interrupted: nothing more is said; once more stops the waiting too",
                ),
                (Stop::Now, "interrupted again: stopping"),
            ] {
                if let Err(error) = tokio::signal::ctrl_c().await {
                    info!(%error, "Ctrl-C cannot be heard");
                    break;
                }
                info!("{note}");
                sender.send_replace(stop);
            }
            // Keeps the channel open: nobody who waits for a change is woken for nothing.
            std::future::pending::<()>().await;
        });
        Self { receiver, task }
    }

    /// To be handed to whoever can be stopped.
    pub(super) fn receiver(&self) -> watch::Receiver<Stop> {
        self.receiver.clone()
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
