//! How the fleet writes numbers and texts into JSON, without a trip through floating point and
//! without an allocation each. Used by everything that writes a payload.

/// Unix seconds, with six digits behind the point where there is a fraction.
pub(super) fn seconds(unix_microseconds: i64, out: &mut Vec<u8>) {
    let whole = unix_microseconds / 1_000_000;
    let fraction = unix_microseconds % 1_000_000;
    if unix_microseconds < 0 {
        out.push(b'-');
    }
    digits(whole.unsigned_abs(), 1, out);
    if fraction != 0 {
        out.push(b'.');
        digits(fraction.unsigned_abs(), 6, out);
    }
}

/// A number kept as a whole count of tenths (`places` 1), hundredths (2), ….
pub(super) fn fixed(value: i32, places: u32, out: &mut Vec<u8>) {
    let unit = 10u64.pow(places);
    let magnitude = u64::from(value.unsigned_abs());
    if value < 0 {
        out.push(b'-');
    }
    digits(magnitude / unit, 1, out);
    out.push(b'.');
    digits(magnitude % unit, places as usize, out);
}

/// A whole number.
pub(super) fn whole(value: i32, out: &mut Vec<u8>) {
    if value < 0 {
        out.push(b'-');
    }
    digits(u64::from(value.unsigned_abs()), 1, out);
}

fn digits(mut value: u64, least: usize, out: &mut Vec<u8>) {
    const MAX_DIGITS: usize = 20;
    let mut buffer = [b'0'; MAX_DIGITS];
    let mut start = MAX_DIGITS;
    while value > 0 {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(value % 10).expect("a digit is below 10");
        value /= 10;
    }
    out.extend_from_slice(&buffer[start.min(MAX_DIGITS - least)..]);
}

/// A JSON string, quoted and escaped.
pub(super) fn string(text: &str, out: &mut Vec<u8>) {
    serde_json::to_writer(out, text).expect("a text is written to memory");
}

/// Whether a text is a number as JSON has it, so that it can stand there as it is.
pub(super) fn is_json_number(text: &str) -> bool {
    fn digits(text: &[u8]) -> Option<&[u8]> {
        let count = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then(|| &text[count..])
    }
    fn rest_after_number(text: &[u8]) -> Option<&[u8]> {
        let text = text.strip_prefix(b"-").unwrap_or(text);
        let mut rest = match text.strip_prefix(b"0") {
            Some(rest) => rest,
            None => digits(text)?,
        };
        if let Some(fraction) = rest.strip_prefix(b".") {
            rest = digits(fraction)?;
        }
        if let [b'e' | b'E', exponent @ ..] = rest {
            let unsigned = match exponent {
                [b'+' | b'-', unsigned @ ..] => unsigned,
                unsigned => unsigned,
            };
            rest = digits(unsigned)?;
        }
        Some(rest)
    }
    rest_after_number(text.as_bytes()).is_some_and(<[u8]>::is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Timestamp;
    use proptest::prelude::*;

    fn written(write: impl Fn(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn seconds_keep_every_microsecond() {
        assert_eq!(written(|out| seconds(0, out)), "0");
        assert_eq!(written(|out| seconds(1_325_376_000_000_000, out)), "1325376000");
        assert_eq!(written(|out| seconds(1_700_000_000_000_001, out)), "1700000000.000001");
        assert_eq!(written(|out| seconds(-1_500_000, out)), "-1.500000");
    }

    #[test]
    fn fixed_point_is_exact() {
        for (value, places, text) in
            [(0, 1, "0.0"), (-5, 2, "-0.05"), (2_137, 2, "21.37"), (10_132, 1, "1013.2")]
        {
            assert_eq!(written(|out| fixed(value, places, out)), text);
        }
        assert_eq!(written(|out| whole(i32::MIN, out)), "-2147483648");
    }

    #[test]
    fn knows_a_number_from_a_word() {
        for number in ["0", "-0", "0.0", "12.80", "-1e5", "1E+05", "10", "2.5e-3"] {
            assert!(is_json_number(number), "{number}");
        }
        for word in ["", "-", "+5", ".5", "1.", "007", "1e", "NaN", "1_000", "0x1", "1 ", "drizzle"]
        {
            assert!(!is_json_number(word), "{word}");
        }
    }

    proptest! {
        #[test]
        fn seconds_are_read_back(microseconds in 0i64..4_500_000_000_000_000) {
            let text = written(|out| seconds(microseconds, out));
            let read = Timestamp::from_unix_seconds(text.parse().unwrap());
            prop_assert_eq!(read, Some(Timestamp::from_unix_microseconds(microseconds)));
        }

        #[test]
        fn a_number_is_what_serde_json_takes_for_one(text in "[-+0-9.eE]{0,8}") {
            let number = serde_json::from_str::<Box<serde_json::value::RawValue>>(&text)
                .is_ok_and(|raw| raw.get() == text);
            prop_assert_eq!(is_json_number(&text), number);
        }
    }
}
