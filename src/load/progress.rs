//! Progress on standard error: a bar on a terminal, else one line per step; results go to standard output.

use indicatif::{HumanCount, ProgressBar, ProgressDrawTarget, ProgressFinish, ProgressStyle};

/// A step that counts up to `length`, where that is known. Shown until it is dropped.
#[expect(clippy::print_stderr, reason = "where no bar can be drawn")]
pub(crate) fn progress(quiet: bool, step: &str, length: Option<u64>) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let style = match length {
        Some(_) => "{msg:44} {bar:24} {human_pos} of {human_len}, {per_sec}, {elapsed}",
        None => "{msg:44} {spinner} {human_pos}, {per_sec}, {elapsed}",
    };
    let bar = ProgressBar::with_draw_target(length, target)
        .with_style(ProgressStyle::with_template(style).expect("a constant"))
        .with_message(step.to_owned())
        .with_finish(ProgressFinish::AndClear);
    if bar.is_hidden() && !quiet {
        eprintln!("{step}{}", length.map_or_else(String::new, |it| format!(" ({})", count(it))));
    }
    bar
}

/// `1234567` as `1,234,567`.
pub(crate) fn count(number: u64) -> String {
    HumanCount(number).to_string()
}
