//! The state of a configuration, from its creation to its acknowledgement. Pure.

use std::str::FromStr;

use serde::Serialize;

/// The state of a configuration.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConfigurationState {
    /// The sensor has no configuration.
    None,
    /// Committed, not yet acknowledged by the broker.
    Pending,
    /// Acknowledged by the broker.
    Published,
    /// The sensor has applied it.
    Acknowledged,
    /// The sensor could not apply it.
    Failed,
    /// Only a sensor's newest: published more than five minutes ago, and the sensor has sent a message
    /// since without acknowledging it.
    Stale,
}

impl ConfigurationState {
    /// Every state.
    pub const ALL: [Self; 6] =
        [Self::None, Self::Pending, Self::Published, Self::Acknowledged, Self::Failed, Self::Stale];

    /// The name in the API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pending => "pending",
            Self::Published => "published",
            Self::Acknowledged => "acknowledged",
            Self::Failed => "failed",
            Self::Stale => "stale",
        }
    }
}

impl FromStr for ConfigurationState {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|state| state.name() == text).ok_or("there is no such state")
    }
}
