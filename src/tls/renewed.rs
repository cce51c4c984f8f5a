//! A value read from files, and read again when they change. Owned by [`Client`](super::Client) and
//! [`Server`](super::Server), called at each handshake. While a new file cannot be used, the old value stays in
//! use, with one warning.

use std::fmt;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tracing::{info, warn};

use super::FileError;

/// The files are examined at most this often.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

type ReadFiles<T> = dyn Fn() -> Result<T, FileError> + Send + Sync;

/// The value, and the files that it was read from.
pub(super) struct Renewed<T> {
    files: Vec<PathBuf>,
    load: Box<ReadFiles<T>>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    stamps: Vec<Stamp>,
    looked_at: Instant,
}

/// Changes when a file changes; a replaced file has another inode, and a missing one `None`.
type Stamp = Option<(SystemTime, u64, u64)>;

impl<T> Renewed<T> {
    /// Reads the files for the first time.
    pub(super) fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, FileError> + Send + Sync + 'static,
    ) -> Result<Self, FileError> {
        // Before the files are read, so that a change meanwhile is noticed next time.
        let stamps = stamps(&files);
        let value = Arc::new(load()?);
        let state = Mutex::new(State { value, stamps, looked_at: Instant::now() });
        Ok(Self { files, load: Box::new(load), state })
    }

    /// The current value.
    pub(super) fn current(&self) -> Arc<T> {
        let now = Instant::now();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(state.looked_at) >= LOOK_INTERVAL {
            state.looked_at = now;
            let stamps = stamps(&self.files);
            if stamps != state.stamps {
                state.stamps = stamps;
                match (self.load)() {
                    Ok(value) => {
                        info!(files = ?self.files, "certificate files have changed and were read again");
                        state.value = Arc::new(value);
                    }
                    Err(problem) => {
                        warn!(
                            "certificate files have changed, but the old certificates stay in use: {problem}"
                        );
                    }
                }
            }
        }
        Arc::clone(&state.value)
    }
}

impl<T> fmt::Debug for Renewed<T> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Renewed").field(&self.files).finish()
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Stamp> {
    let stamp = |file: &PathBuf| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len(), metadata.ino()))
    };
    files.iter().map(stamp).collect()
}
