//! Whether the service is fit to work: what is connected, and what is missing. Written by those
//! who hold the connections, read by the API.

use std::sync::{Mutex, PoisonError};

use super::Timestamp;

/// What must be up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The connection to the broker that ingests.
    Ingest,
    /// The connection to the broker that publishes configurations.
    Publishing,
    /// Writing batches to the database.
    Writing,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Publishing, Self::Writing];

    /// As the API names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "broker_ingest",
            Self::Publishing => "broker_publishing",
            Self::Writing => "database_writing",
        }
    }
}

/// How one part is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Whether it works.
    pub up: bool,
    /// Since when.
    pub since: Timestamp,
    /// Why it does not.
    pub problem: Option<String>,
}

/// How every part is.
#[derive(Debug)]
pub struct Health(Mutex<[Condition; Part::ALL.len()]>);

impl Default for Health {
    /// The connections to the broker are down until they are up; writing is up until it fails.
    fn default() -> Self {
        let since = Timestamp::now();
        Self(Mutex::new(Part::ALL.map(|part| match part {
            Part::Writing => Condition { up: true, since, problem: None },
            Part::Ingest | Part::Publishing => {
                Condition { up: false, since, problem: Some("not connected yet".into()) }
            }
        })))
    }
}

impl Health {
    /// The part works.
    pub fn up(&self, part: Part) {
        self.change(part, true, None);
    }

    /// The part does not work, and why.
    pub fn down(&self, part: Part, problem: String) {
        self.change(part, false, Some(problem));
    }

    /// How a part is.
    #[must_use]
    pub fn condition(&self, part: Part) -> Condition {
        self.lock()[part as usize].clone()
    }

    fn change(&self, part: Part, up: bool, problem: Option<String>) {
        let condition = &mut self.lock()[part as usize];
        if condition.up != up {
            condition.since = Timestamp::now();
        }
        condition.up = up;
        condition.problem = problem;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, [Condition; Part::ALL.len()]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_marks_the_change_and_not_the_repetition() {
        let health = Health::default();
        health.down(Part::Ingest, "first".into());
        let first = health.condition(Part::Ingest);
        health.down(Part::Ingest, "second".into());
        let second = health.condition(Part::Ingest);
        assert_eq!((first.since, second.problem), (second.since, Some("second".into())));
        health.up(Part::Ingest);
        assert!(health.condition(Part::Ingest).up);
        assert!(health.condition(Part::Writing).up);
    }
}
