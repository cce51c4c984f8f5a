//! Payloads of a sensor. Called by tests that publish as a sensor. Equal arguments give equal payloads.

/// A message with one measurement at this second.
pub(crate) fn measurement(timestamp: f64) -> String {
    measurements([timestamp])
}

/// A message with one measurement at each of these seconds.
pub(crate) fn measurements(timestamps: impl IntoIterator<Item = f64>) -> String {
    let items: Vec<String> = timestamps
        .into_iter()
        .map(|at| format!(r#"{{"revision":0,"timestamp":{at},"value":{{"temperature":{at}}}}}"#))
        .collect();
    format!(r#"{{"measurements":[{}]}}"#, items.join(","))
}

/// A message with one log message at this second.
pub(crate) fn log_message(timestamp: f64) -> String {
    format!(
        r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{timestamp},"subject":"s"}}]}}"#
    )
}

/// A message with one heartbeat, which acknowledges a revision.
pub(crate) fn heartbeat(revision: i32, timestamp: f64, success: bool) -> String {
    format!(
        r#"{{"heartbeats":[{{"revision":{revision},"timestamp":{timestamp},"success":{success}}}]}}"#
    )
}
