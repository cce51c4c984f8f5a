//! The last error of a pool's attempts to connect, and the pool's use. Held by the owners of pools,
//! because bb8's checkout timeout does not say why no connection could be made.

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

/// The numbers of a pool's connections.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolUse {
    /// Connections that are checked out.
    pub busy: u32,
    /// Connections that are not.
    pub idle: u32,
}

impl PoolUse {
    pub(in crate::store) fn of<M: bb8::ManageConnection>(pool: &bb8::Pool<M>) -> Self {
        let state = pool.state();
        let idle = state.idle_connections;
        Self { busy: state.connections.saturating_sub(idle), idle }
    }
}
