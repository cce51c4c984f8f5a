//! What things may be called: networks, sensors, tokens, users. Pure; used where a name is read.

const MAX_CHARACTERS: usize = 200;

pub(super) const NAME_EXPECTED: &str =
    "a string of 1 to 200 characters, none of them a control character";

/// The same, if it can be printed.
pub(super) fn usable_name(name: String) -> Option<String> {
    let usable =
        (1..=MAX_CHARACTERS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
    usable.then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_can_be_printed() {
        for name in ["a", "Grünfläche 7", &"é".repeat(200)] {
            assert!(usable_name(name.into()).is_some(), "{name}");
        }
        for name in ["", "a\0b", "a\nb", &"é".repeat(201)] {
            assert!(usable_name(name.into()).is_none(), "{name}");
        }
    }
}
