//! Progress on standard error: a bar on a terminal, else one line per step; results go to standard output.
//! Shown by `simulate` and `bench` until it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tokio::task::JoinHandle;

const REDRAW_INTERVAL: Duration = Duration::from_millis(250);

pub(crate) struct Progress {
    bar: ProgressBar,
    follower: Option<JoinHandle<()>>,
}

impl Progress {
    /// A step that counts up to `length`, where that is known.
    #[expect(clippy::print_stderr, reason = "where no bar can be drawn")]
    pub(crate) fn new(quiet: bool, step: &str, length: Option<u64>) -> Self {
        let target =
            if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let bar = ProgressBar::with_draw_target(length, target);
        let style = match length {
            Some(_) => "{msg:44} {bar:24} {human_pos} of {human_len}, {per_sec}, {elapsed}",
            None => "{msg:44} {spinner} {human_pos}, {per_sec}, {elapsed}",
        };
        bar.set_style(ProgressStyle::with_template(style).expect("a constant"));
        bar.set_message(step.to_owned());
        if bar.is_hidden() && !quiet {
            eprintln!(
                "{step}{}",
                length.map_or_else(String::new, |it| format!(" ({})", count(it)))
            );
        }
        Self { bar, follower: None }
    }

    pub(crate) fn set(&self, position: u64) {
        self.bar.set_position(position);
    }

    /// Shows a counter that is written elsewhere.
    pub(crate) fn follow(mut self, counter: Arc<AtomicU64>) -> Self {
        let bar = self.bar.clone();
        self.follower = Some(actix_rt::spawn(async move {
            loop {
                bar.set_position(counter.load(Ordering::Relaxed));
                tokio::time::sleep(REDRAW_INTERVAL).await;
            }
        }));
        self
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(follower) = self.follower.take() {
            follower.abort();
        }
        self.bar.finish_and_clear();
    }
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}
