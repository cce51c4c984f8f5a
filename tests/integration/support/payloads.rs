//! What a sensor says, as text. Called by the tests that play one.
//! Promises that the same seconds give the same text.

/// One measurement at this second.
pub(crate) fn measurement(timestamp: f64) -> String {
    measurements([timestamp])
}

/// One message with a measurement at each of these seconds.
pub(crate) fn measurements(timestamps: impl IntoIterator<Item = f64>) -> String {
    let items: Vec<String> = timestamps
        .into_iter()
        .map(|at| format!(r#"{{"revision":0,"timestamp":{at},"value":{{"temperature":{at}}}}}"#))
        .collect();
    format!(r#"{{"measurements":[{}]}}"#, items.join(","))
}

/// One log message at this second.
pub(crate) fn log_message(timestamp: f64) -> String {
    format!(
        r#"{{"log_messages":[{{"severity":"info","revision":0,"timestamp":{timestamp},"subject":"s"}}]}}"#
    )
}

/// An acknowledgement of a revision.
pub(crate) fn heartbeat(revision: i32, timestamp: f64, success: bool) -> String {
    format!(
        r#"{{"heartbeats":[{{"revision":{revision},"timestamp":{timestamp},"success":{success}}}]}}"#
    )
}
