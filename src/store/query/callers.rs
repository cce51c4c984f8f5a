//! Counts the running exports of each caller. Called when an export begins. A share is released however
//! the export ends, and callers without an export are not kept in memory.

use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

pub(in crate::store) type Callers = Arc<Mutex<foldhash::HashMap<Uuid, u32>>>;

/// A caller's share while an export runs.
pub(in crate::store) struct CallersExport(Option<(Callers, Uuid)>);

impl CallersExport {
    /// None if the caller already runs `limit` exports. Without authentication there is no limit per caller.
    pub(super) fn begin(callers: &Callers, caller: Option<Uuid>, limit: u32) -> Option<Self> {
        let Some(caller) = caller else { return Some(Self(None)) };
        let mut running = callers.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(caller).or_default();
        (*count < limit).then(|| {
            *count += 1;
            Self(Some((Arc::clone(callers), caller)))
        })
    }
}

impl Drop for CallersExport {
    fn drop(&mut self) {
        let Some((callers, caller)) = &self.0 else { return };
        let mut running = callers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = running.entry(*caller) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_share_until_its_export_ends() {
        let callers = Callers::default();
        let (one, other) = (Some(Uuid::new_v4()), Some(Uuid::new_v4()));
        let first = CallersExport::begin(&callers, one, 1);
        assert!(first.is_some() && CallersExport::begin(&callers, one, 1).is_none());
        assert!(CallersExport::begin(&callers, other, 1).is_some());
        assert!(CallersExport::begin(&callers, None, 1).is_some());
        drop(first);
        assert!(CallersExport::begin(&callers, one, 1).is_some());
        assert!(callers.lock().unwrap().is_empty());
    }
}
