//! Access control: a role, and the networks in which it applies. Stored with users and tokens, checked
//! by the API. Pure.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a caller may do. Each role includes those before it.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// May read.
    Viewer,
    /// May also configure and replay.
    Operator,
    /// May also manage sensors, networks, users, tokens and ingest.
    Admin,
}

impl Role {
    /// Every role, the weakest first.
    pub const ALL: [Self; 3] = [Self::Viewer, Self::Operator, Self::Admin];

    /// The name in the tables and the API.
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
        role.ok_or_else(|| "expected viewer, operator or admin".into())
    }
}

/// A network's identifier, in the same form as a sensor's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NetworkIdentifier(pub Uuid);

impl NetworkIdentifier {
    /// The network of sensors that were created without one.
    pub const DEFAULT: Self = Self(Uuid::nil());

    /// Version 4.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// Reads the hyphenated form, in either case.
    pub fn parse(text: &str) -> Option<Self> {
        super::SensorIdentifier::parse(text).map(|identifier| Self(identifier.0))
    }
}

impl fmt::Display for NetworkIdentifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(formatter)
    }
}

/// Where a role applies. To the caller, anything else does not exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// Every network, and what belongs to none.
    All,
    /// One network.
    Network(NetworkIdentifier),
}

impl Scope {
    /// None means all networks.
    pub fn of(network: Option<NetworkIdentifier>) -> Self {
        network.map_or(Self::All, Self::Network)
    }

    /// The reverse of [`Self::of`].
    pub const fn network(self) -> Option<NetworkIdentifier> {
        match self {
            Self::All => None,
            Self::Network(network) => Some(network),
        }
    }

    /// Whether it includes a network.
    pub fn covers(self, network: NetworkIdentifier) -> bool {
        self.network().is_none_or(|own| own == network)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_ordered_and_parse() {
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
