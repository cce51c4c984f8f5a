//! The least role that each operation takes. Asked by `authenticate.rs` before any handler runs, and
//! by the document of the API, which therefore cannot say another. Pure. Promises that a change which
//! nobody has named takes an admin.

use actix_web::http::Method;

use super::caller::Caller;
use super::problem::Problem;
use crate::domain::Role;

/// The base path of the API.
const BASE: &str = "/api/v1/";

/// What a caller must be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Needed {
    pub(super) role: Role,
    /// It concerns the whole service: a role that holds in one network does not suffice.
    pub(super) everywhere: bool,
}

impl Needed {
    /// Whether the caller's role suffices. Whether it holds in all networks, the handler asks, which
    /// knows whether the one that is meant is there at all for this caller.
    ///
    /// # Errors
    /// 403, which names all that is needed.
    pub(super) fn ask(self, caller: &Caller) -> Result<(), Problem> {
        match self {
            Self { role, .. } if caller.role() >= role => Ok(()),
            Self { role, everywhere: true } => caller.may_everywhere(role),
            Self { role, everywhere: false } => caller.may(role).map(drop),
        }
    }
}

/// What it takes to ask for the path, as a client sends it or as the document has it.
pub(super) fn needed(method: &Method, path: &str) -> Needed {
    let path: Vec<&str> = path.strip_prefix(BASE).unwrap_or_default().split('/').collect();
    let role = match (method.is_safe(), &*path) {
        (_, ["ingest" | "tokens" | "users", ..]) => Role::Admin,
        // Who may sign in may also sign out.
        (true, _) | (false, ["sessions", ..]) => Role::Viewer,
        (false, ["rejections", ..] | ["sensors", _, "configurations", ..]) => Role::Operator,
        (false, _) => Role::Admin,
    };
    let everywhere = match &*path {
        ["ingest", ..] => true,
        ["networks"] => *method == Method::POST,
        ["networks", _] => *method == Method::DELETE,
        _ => false,
    };
    Needed { role, everywhere }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_takes_an_operator_at_the_least() {
        for path in ["/api/v1/x", "/api/v1/sensors/x/configurations", "/", "/api/v1/rejections"] {
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                assert!(needed(&method, path).role >= Role::Operator, "{method} {path}");
            }
            assert_eq!(needed(&Method::HEAD, path).role, Role::Viewer, "{path}");
        }
        assert_eq!(needed(&Method::DELETE, "/api/v1/sessions/current").role, Role::Viewer);
        assert_eq!(needed(&Method::POST, "/api/v1/sensors").role, Role::Admin);
        assert_eq!(needed(&Method::GET, "/api/v1/users/x").role, Role::Admin);
    }
}
