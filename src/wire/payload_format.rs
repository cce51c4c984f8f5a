//! What a payload that is not JSON looks like. Called by the careful pass for the sentence of a rejection.
//! A guess by the first bytes: it changes a sentence, and no code.

/// Completes "the payload looks …".
pub(super) fn guess(payload: &[u8]) -> Option<&'static str> {
    Some(match payload {
        [0x1f, 0x8b, ..] => "gzip-compressed",
        // CMF and FLG of a 32 KiB window, at each level (RFC 1950, section 2.2).
        [0x78, 0x01 | 0x5e | 0x9c | 0xda, ..] => "zlib-compressed",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd-compressed",
        [0xff, 0xfe, 0, 0, ..] | [0, 0, 0xfe, 0xff, ..] => "UTF-32-encoded",
        [b'{' | b'[', 0, 0, 0, ..] | [0, 0, 0, b'{' | b'[', ..] => "UTF-32-encoded",
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "UTF-16-encoded",
        [b'{' | b'[', 0, ..] | [0, b'{' | b'[', ..] => "UTF-16-encoded",
        // Self-described (RFC 8949, section 3.4.6), or a map that begins with a text.
        [0xd9, 0xd9, 0xf7, ..] | [0xa1..=0xbf, 0x60..=0x78, ..] => "CBOR-encoded",
        // Neither byte begins a character of UTF-8: an array or a map.
        [0x81..=0x9f, 0x60..=0xbf | 0xd9, ..] => "CBOR- or MessagePack-encoded",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::guess;

    #[test]
    fn the_format_is_named() {
        let utf16 = |text: &str, to_bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
            text.encode_utf16().flat_map(to_bytes).collect()
        };
        for (payload, expected) in [
            (b"\x1f\x8b\x08\0".to_vec(), Some("gzip-compressed")),
            (b"x\x01".to_vec(), Some("zlib-compressed")),
            (b"x\x9c\xab".to_vec(), Some("zlib-compressed")),
            (b"x\xda".to_vec(), Some("zlib-compressed")),
            (b"\x28\xb5\x2f\xfd".to_vec(), Some("zstd-compressed")),
            (utf16("{\"a", u16::to_le_bytes), Some("UTF-16-encoded")),
            (utf16("\u{feff}[", u16::to_be_bytes), Some("UTF-16-encoded")),
            (b"[\0\0\0".to_vec(), Some("UTF-32-encoded")),
            (b"\xa1\x6cmeasurements\x81".to_vec(), Some("CBOR-encoded")),
            (b"\xd9\xd9\xf7\x80".to_vec(), Some("CBOR-encoded")),
            (b"\x81\xacmeasurements".to_vec(), Some("CBOR- or MessagePack-encoded")),
            (b"x = 1".to_vec(), None),
            (b"\xe9t\xe9".to_vec(), None),
            (b"".to_vec(), None),
        ] {
            assert_eq!(guess(&payload), expected, "{payload:x?}");
        }
    }
}
