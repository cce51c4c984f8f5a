//! Who may call which route. Declared with each route and checked by `authenticate.rs`. Pure: 403 names
//! the role that is needed.

use super::caller::Caller;
use super::problem::{Kind, Problem};
use crate::domain::Role;

/// `AUTH`, `…_OPEN`, `SESSION_HOURS`, `REQUESTS_PER_SECOND`
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessConfig {
    /// `AUTH`: whether callers are asked who they are.
    pub required: bool,
    /// `METRICS_OPEN`
    pub metrics_open: bool,
    /// `DOCS_OPEN`
    pub docs_open: bool,
    /// `SESSION_HOURS`
    pub session_hours: u32,
    /// `REQUESTS_PER_SECOND`, of one token.
    pub requests_per_second: u32,
}

/// Who may call a route.
#[derive(Clone, Copy, Debug)]
pub(super) enum Access {
    /// Anyone, with or without a token.
    Open,
    /// Anyone if the setting allows it, else the holder of any token.
    OpenIf(fn(&AccessConfig) -> bool),
    /// Callers with at least this role, in one network or in all.
    Role(Role),
    /// Callers with at least this role in all networks: the route concerns the whole service.
    RoleInAllNetworks(Role),
}

impl Access {
    pub(super) const VIEWER: Self = Self::Role(Role::Viewer);
    pub(super) const OPERATOR: Self = Self::Role(Role::Operator);
    pub(super) const ADMIN: Self = Self::Role(Role::Admin);
    pub(super) const ADMIN_OF_ALL: Self = Self::RoleInAllNetworks(Role::Admin);

    /// Whether the route is served without authentication.
    pub(super) fn is_open(self, config: &AccessConfig) -> bool {
        match self {
            Self::Open => true,
            Self::OpenIf(setting) => setting(config),
            Self::Role(_) | Self::RoleInAllNetworks(_) => false,
        }
    }

    /// The minimum role, and whether it must hold in all networks; `None` for a route without authentication.
    pub(super) fn needed(self) -> Option<(Role, bool)> {
        match self {
            Self::Open => None,
            Self::OpenIf(_) => Some((Role::Viewer, false)),
            Self::Role(role) => Some((role, false)),
            Self::RoleInAllNetworks(role) => Some((role, true)),
        }
    }

    /// The problems of authentication and of queries; a route without authentication declares its own.
    pub(super) fn problems(self) -> &'static [Kind] {
        match self {
            Self::Open => &[],
            Self::OpenIf(_) | Self::Role(_) | Self::RoleInAllNetworks(_) => &[
                Kind::Unauthenticated,
                Kind::Forbidden,
                Kind::TooManyRequests,
                Kind::DatabaseUnavailable,
                Kind::Busy,
                Kind::ReadTimeout,
            ],
        }
    }

    /// # Errors
    /// 403, which names the role that is needed.
    pub(super) fn check(self, caller: &Caller) -> Result<(), Problem> {
        match self.needed() {
            Some((role, in_all_networks)) => caller.check(role, in_all_networks),
            None => Ok(()),
        }
    }
}
