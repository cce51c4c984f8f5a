//! The health of the service: which parts work, since when, and why not. Updated by the owners of the
//! connections, read by the API.

use std::sync::{Mutex, PoisonError};

use super::Timestamp;

/// A part of the service that must be up for it to be ready.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The broker connection that ingests.
    Ingest,
    /// The broker connection that publishes configurations.
    Publishing,
    /// Committing batches to the database.
    Writing,
}

impl Part {
    /// Every part.
    pub const ALL: [Self; 3] = [Self::Ingest, Self::Publishing, Self::Writing];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingest => "broker_ingest",
            Self::Publishing => "broker_publishing",
            Self::Writing => "database_writing",
        }
    }
}

/// The condition of one part.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Condition {
    /// Whether it works.
    pub up: bool,
    /// When `up` last changed.
    pub since: Timestamp,
    /// Why it does not work.
    pub problem: Option<String>,
}

/// The condition of every part.
#[derive(Debug)]
pub struct Health(Mutex<[Condition; Part::ALL.len()]>);

impl Default for Health {
    /// The broker connections start down; writing is up until it fails.
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
    /// Records that the part works.
    pub fn up(&self, part: Part) {
        self.change(part, true, None);
    }

    /// Records why the part does not work.
    pub fn down(&self, part: Part, problem: String) {
        self.change(part, false, Some(problem));
    }

    /// The condition of a part.
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
    fn since_changes_only_with_the_condition() {
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
