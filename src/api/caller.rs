//! The authenticated caller: put into each request by `authenticate.rs`, extracted by the handlers. A handler
//! that takes it runs only for an authenticated caller; an insufficient role is 403.

use std::future::{Ready, ready};

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage, HttpRequest};
use uuid::Uuid;

use super::problem::Problem;
use crate::domain::{Role, Scope, Timestamp};
use crate::store::TokenRow;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Caller {
    /// `None` without authentication.
    pub(super) token: Option<Uuid>,
    pub(super) name: String,
    pub(super) role: Role,
    /// The networks in which the role holds; everything else is 404.
    pub(super) scope: Scope,
    /// The user of a session.
    user: Option<Uuid>,
    pub(super) expires_at: Option<Timestamp>,
}

impl Caller {
    /// The caller where `AUTH=off`.
    pub(super) fn anybody() -> Self {
        Self {
            token: None,
            name: "anybody".into(),
            role: Role::Admin,
            scope: Scope::All,
            user: None,
            expires_at: None,
        }
    }

    /// # Errors
    /// 403, which names the role that is needed and the caller's.
    pub(super) fn check(&self, role: Role, in_all_networks: bool) -> Result<(), Problem> {
        if self.role >= role && (self.scope == Scope::All || !in_all_networks) {
            return Ok(());
        }
        let everywhere = if in_all_networks { " in all networks" } else { "" };
        let reach = if self.scope == Scope::All { "" } else { ", in one network" };
        Err(Problem::forbidden(format!(
            "it takes the role {role}{everywhere}; the caller's is {}{reach}",
            self.role
        )))
    }

    pub(super) const fn is_session(&self) -> bool {
        self.user.is_some()
    }

    /// The owner of streams and exports, for the limits: the user across all sessions, or the token.
    pub(super) fn holder(&self) -> Option<Uuid> {
        self.user.or(self.token)
    }

    /// The caller of an authenticated request; for extractors.
    pub(super) fn of(request: &HttpRequest) -> Result<Self, Problem> {
        request
            .extensions()
            .get::<Self>()
            .cloned()
            .ok_or_else(|| Problem::internal("the handler of an open route asks for its caller"))
    }
}

impl From<TokenRow> for Caller {
    fn from(row: TokenRow) -> Self {
        Self {
            token: Some(row.identifier),
            name: row.name,
            role: row.role,
            scope: Scope::of(row.network),
            user: row.user,
            expires_at: row.expiry_timestamp.map(Timestamp::from),
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Self::of(request))
    }
}
