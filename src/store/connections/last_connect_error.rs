//! Why connections could not be made lately, and how those of a pool are used. Held by the owners of
//! pools: a pool that waits in vain does not say why.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bb8::{ErrorSink, RunError};

use crate::store::StoreError;
use crate::store::error::ConnectProblem;

/// The last error of a pool's attempts to connect.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct LastConnectError(Arc<Mutex<Option<ConnectProblem>>>);

impl LastConnectError {
    pub(in crate::store) fn checkout_error(
        &self,
        error: RunError<StoreError>,
        waited: Duration,
    ) -> StoreError {
        match error {
            RunError::User(error) => error,
            RunError::TimedOut => StoreError::PoolTimeout { waited, last: self.last().take() },
        }
    }

    fn last(&self) -> MutexGuard<'_, Option<ConnectProblem>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ErrorSink<StoreError> for LastConnectError {
    fn sink(&self, error: StoreError) {
        *self.last() = Some(ConnectProblem::of(&error));
    }

    fn boxed_clone(&self) -> Box<dyn ErrorSink<StoreError>> {
        Box::new(self.clone())
    }
}

/// How the connections of a pool are used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// At work.
    pub busy: u32,
    /// Waiting for work.
    pub idle: u32,
}

impl PoolUse {
    pub(in crate::store) fn of<M: bb8::ManageConnection>(pool: &bb8::Pool<M>) -> Self {
        let state = pool.state();
        let idle = state.idle_connections;
        Self { busy: state.connections.saturating_sub(idle), idle }
    }
}
