//! When the lines speak, and when each of them is done. Pure: the moment is handed in. Asked by each
//! line whenever it wakes.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use super::stop::Stop;

/// How long, after everything has been said, the broker may take to acknowledge it.
const WIND_DOWN: Duration = Duration::from_secs(30);

/// When and how long the lines speak.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// The same for all.
    pub(super) started_at: Instant,
    /// None goes on until everything has been said.
    pub(super) duration: Option<Duration>,
    pub(super) stop: watch::Receiver<Stop>,
}

impl Span {
    /// Whether somebody called it off.
    pub(super) fn is_stopped(&self) -> bool {
        *self.stop.borrow() != Stop::No
    }

    /// Since the start; it stands still at the end.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        let elapsed = now - self.started_at;
        self.duration.map_or(elapsed, |duration| duration.min(elapsed))
    }

    /// How far a line has come that speaks, and has said everything or not.
    pub(super) fn end(&self, now: Instant, exhausted: bool) -> End {
        let timed_out = self.duration.is_some_and(|duration| now >= self.started_at + duration);
        if self.is_stopped() || timed_out || exhausted {
            return End::Waiting { deadline: now + WIND_DOWN };
        }
        End::Speaking
    }
}

/// How far a line has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// There is something left to say.
    Speaking,
    /// Everything has been said; the broker has to acknowledge it.
    Waiting {
        /// Nobody waits for longer.
        deadline: Instant,
    },
}

impl End {
    /// Whether there is nothing left to do.
    pub(super) fn is_over(self, now: Instant, all_acknowledged: bool, span: &Span) -> bool {
        match self {
            Self::Speaking => false,
            Self::Waiting { deadline } => {
                all_acknowledged || now >= deadline || *span.stop.borrow() == Stop::Now
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(duration: Option<Duration>) -> (watch::Sender<Stop>, Span) {
        let (sender, stop) = watch::channel(Stop::No);
        (sender, Span { started_at: Instant::now(), duration, stop })
    }

    #[test]
    fn a_line_waits_for_its_acknowledgements_and_no_longer() {
        let (_switch, span) = span(Some(Duration::from_secs(5)));
        let start = span.started_at;
        assert_eq!(span.end(start, false), End::Speaking);
        let end = span.end(start + Duration::from_secs(5), false);
        assert!(!end.is_over(start + Duration::from_secs(6), false, &span));
        assert!(end.is_over(start + Duration::from_secs(6), true, &span));
        assert!(end.is_over(start + Duration::from_secs(35), false, &span));
        assert_eq!(span.elapsed(start + Duration::from_secs(9)), Duration::from_secs(5));
    }

    #[test]
    fn called_off_once_it_waits_and_twice_it_does_not() {
        let (switch, span) = span(None);
        let now = span.started_at;
        switch.send_replace(Stop::Speaking);
        let end = span.end(now, false);
        assert!(end != End::Speaking && !end.is_over(now, false, &span));
        switch.send_replace(Stop::Now);
        assert!(end.is_over(now, false, &span));
    }

    #[test]
    fn a_line_that_has_said_everything_waits() {
        let (_switch, span) = span(None);
        assert_ne!(span.end(span.started_at, true), End::Speaking);
    }
}
