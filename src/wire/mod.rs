//! What stands on the wire.

/// `MAX_…`
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// `MAX_PAYLOAD_BYTES`
    pub payload_bytes: usize,
    /// `MAX_ITEMS_PER_MESSAGE`
    pub items_per_message: usize,
}

/// Whether a topic prefix can stand before a topic.
///
/// # Errors
/// Says what cannot stand there.
pub fn check_prefix(prefix: &str) -> Result<(), &'static str> {
    if prefix.contains(['+', '#']) {
        return Err("a topic prefix holds no wildcard (+ or #)");
    }
    if prefix.contains('\0') {
        return Err("a topic prefix holds no U+0000");
    }
    if prefix.starts_with('/') || prefix.ends_with('/') || prefix.starts_with('$') {
        return Err("a topic prefix begins and ends with a level of its own, not with / or $");
    }
    Ok(())
}
