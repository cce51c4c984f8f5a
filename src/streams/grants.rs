//! Ends streams whose grant has ended: the token was revoked, the user changed, the sensor was deleted or moved, by
//! this process or by another. Runs beside the hub. A stream ends within two seconds after its grant, unless the
//! database is unavailable, and is unaffected by other grants.
//!
//! Invariant: a notification only hastens the next check. While a stream is open, the tables are read every second
//! and every open stream is checked, also one that opened during a revocation.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::hub::Hub;
use crate::domain::{Faults, Task, pause};
use crate::metrics::Metrics;
use crate::store::AccessWatch;

/// With a check of at most [`CHECK_TIMEOUT`] it stays within two seconds.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

const CHECK_TIMEOUT: Duration = Duration::from_millis(900);

/// Checks the streams of the hub; never returns.
pub async fn check_grants(hub: &Hub, watch: &mut AccessWatch, metrics: &Metrics, faults: &Faults) {
    let (mut failures, mut retry_at) = (0, Instant::now());
    loop {
        if !watch.listener.is_listening() && retry_at <= Instant::now() {
            match watch.listener.listen().await {
                Ok(()) => {
                    info!("listening for changes of access");
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    retry_at = Instant::now() + pause(failures, rand::random());
                    if failures == 1 {
                        warn!(%error, "not listening for changes of access; polling every second");
                    }
                }
            }
        }
        metrics.access_listener_up.set(watch.listener.is_listening().into());
        tokio::select! {
            () = tokio::time::sleep(CHECK_INTERVAL) => {}
            () = watch.listener.changed() => {}
        }
        faults.at(Task::AccessWatch);
        let open = hub.open_grants();
        if open.is_empty() {
            continue;
        }
        let check = watch.existing(&open.tokens, &open.sensors);
        match tokio::time::timeout(CHECK_TIMEOUT, check).await {
            Ok(Ok(existing)) => hub.close_ended(&open, &existing),
            Ok(Err(error)) => debug!(%error, "the rights of streams could not be checked"),
            Err(_elapsed) => debug!("the rights of streams could not be checked in time"),
        }
    }
}
