//! What the person at the terminal sees meanwhile: a bar for what is long, a line for each step
//! where there is no terminal. Written to standard error; the results go to standard output.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Where progress is shown.
#[derive(Clone, Debug)]
pub(super) struct Console {
    quiet: bool,
}

/// A counter that is shown until it is dropped.
pub(super) struct Shown {
    bar: ProgressBar,
    follows: Option<actix_rt::task::JoinHandle<()>>,
}

impl Console {
    pub(super) const fn new(quiet: bool) -> Self {
        Self { quiet }
    }

    /// A step begins that counts up to so many.
    #[expect(clippy::print_stderr, reason = "where no bar can be drawn")]
    pub(super) fn step(&self, what: &str, length: u64) -> Shown {
        let target =
            if self.quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(Some(length), target);
        let style = "{msg:44} {bar:24} {human_pos} of {human_len}, {elapsed}";
        bar.set_style(ProgressStyle::with_template(style).expect("it is written in the source"));
        bar.set_message(what.to_owned());
        if bar.is_hidden() && !self.quiet {
            eprintln!("{what} ({length})");
        }
        Shown { bar, follows: None }
    }
}

impl Shown {
    pub(super) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows a counter that somebody else writes.
    pub(super) fn follow(mut self, counter: &Arc<AtomicU64>) -> Self {
        let (bar, counter) = (self.bar.clone(), Arc::clone(counter));
        self.follows = Some(actix_rt::spawn(async move {
            loop {
                bar.set_position(counter.load(Ordering::Relaxed));
                tokio::time::sleep(REDRAW_INTERVAL).await;
            }
        }));
        self
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if let Some(follows) = self.follows.take() {
            follows.abort();
        }
        self.bar.finish_and_clear();
    }
}
