//! Who may do what: a role, and the networks in which it holds. Pure values, kept by the store and
//! asked by the API.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a caller may do. Each role may do all that those before it may.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Reads.
    Viewer,
    /// Configures and replays too.
    Operator,
    /// Manages sensors, networks, users, tokens and ingest too.
    Admin,
}

impl Role {
    /// Every role, the least first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// As the tables and the API name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| "it takes viewer, operator or admin".into())
    }
}

/// The name of a network in the API and in the tables: a UUID.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkIdentifier(pub Uuid);

impl NetworkIdentifier {
    /// The network of sensors of which nobody has said to which they belong.
    pub const DEFAULT: Self = Self(Uuid::nil());

    /// A new random identifier (version 4).
    #[must_use]
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads the hyphenated form, in either case.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        super::SensorIdentifier::parse(text).map(|identifier| Self(identifier.0))
    }
}

impl fmt::Display for NetworkIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// Where a role holds. What lies outside is, to the caller, not there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// In every network, and in what belongs to none.
    All,
    /// In one network.
    Network(NetworkIdentifier),
}

impl Scope {
    /// The scope of a network, or of all where there is none.
    #[must_use]
    pub fn of(network: Option<NetworkIdentifier>) -> Self {
        network.map_or(Self::All, Self::Network)
    }

    /// The one network; none where it is all of them, as a statement's parameter wants it.
    #[must_use]
    pub const fn network(self) -> Option<NetworkIdentifier> {
        match self {
            Self::All => None,
            Self::Network(network) => Some(network),
        }
    }

    /// Whether a network lies within.
    #[must_use]
    pub fn covers(self, network: NetworkIdentifier) -> bool {
        self.network().is_none_or(|own| own == network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_may_what_those_before_it_may() {
        assert!(Role::ALL.is_sorted());
        for role in Role::ALL {
            assert_eq!(role.name().parse(), Ok(role));
        }
        assert!("root".parse::<Role>().is_err());
    }

    #[test]
    fn a_scope_covers_its_own_network() {
        let (own, other) = (NetworkIdentifier::random(), NetworkIdentifier::DEFAULT);
        assert!(Scope::All.covers(own) && Scope::All.covers(other));
        assert!(Scope::of(Some(own)).covers(own) && !Scope::of(Some(own)).covers(other));
        assert_eq!(NetworkIdentifier::parse(&own.to_string()), Some(own));
    }
}
