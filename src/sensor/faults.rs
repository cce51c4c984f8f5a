//! Faults that a test hands in. In production there are none.

use std::fmt;
use std::sync::Arc;

use crate::domain::Uplink;

type Condition = Arc<dyn Fn(&Uplink) -> bool + Send + Sync>;

/// What is to go wrong.
#[derive(Clone, Default)]
pub struct Faults {
    actor_panics: Option<Condition>,
}

impl Faults {
    /// A sensor's actor panics over the messages that fulfil this.
    #[must_use]
    pub fn actor_panics(condition: impl Fn(&Uplink) -> bool + Send + Sync + 'static) -> Self {
        Self { actor_panics: Some(Arc::new(condition)) }
    }

    /// # Panics
    /// When the test said so.
    pub(super) fn strike(&self, uplink: &Uplink) {
        if let Some(condition) = &self.actor_panics {
            assert!(!condition(uplink), "a fault that a test handed in");
        }
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Faults")
            .field("actor_panics", &self.actor_panics.is_some())
            .finish()
    }
}
