//! Scans text that is not JSON by its strings and brackets. Called for the elements of a malformed payload, and
//! for the detail about a malformed element. Terminates for any bytes, and reports an unclosed string or
//! bracket.

use serde::de::IgnoredAny;

/// The elements of the array, in an object's member or by itself; `None` where strings or brackets are not
/// closed.
pub(super) fn split<'a>(member: &str, payload: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    Scan { bytes: payload, at: 0 }.payload(member.as_bytes())
}

/// The first value in an element that no JSON parser reads: the path of its members, and its text. `None` if
/// the element is malformed in another way.
pub fn malformed_value(element: &str) -> Option<(String, &str)> {
    Scan { bytes: element.as_bytes(), at: 0 }.malformed_value(element)
}

/// Reads what need not be JSON. Every method ends at a position that is one byte of ASCII, and returns
/// `None` where brackets or strings are not closed.
struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scan<'a> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn skip(&mut self, byte: u8) -> Option<()> {
        (self.peek() == Some(byte)).then(|| self.at += 1)
    }

    fn payload(&mut self, member: &[u8]) -> Option<Vec<&'a [u8]>> {
        self.skip_space();
        let elements = if self.peek() == Some(b'[') { self.array() } else { self.object(member) };
        self.skip_space();
        elements.filter(|_| self.peek().is_none())
    }

    fn object(&mut self, member: &[u8]) -> Option<Vec<&'a [u8]>> {
        self.skip(b'{')?;
        let mut elements = None;
        loop {
            self.skip_space();
            let (start, quote) = (self.at, self.peek()?);
            if quote != b'"' {
                return None;
            }
            self.skip_string(quote)?;
            let is_wanted = &self.bytes[start + 1..self.at - 1] == member;
            self.skip_space();
            self.skip(b':')?;
            self.skip_space();
            if is_wanted {
                if elements.replace(self.array()?).is_some() {
                    return None;
                }
            } else {
                self.skip_value()?;
            }
            self.skip_space();
            if self.skip(b',').is_none() {
                self.skip(b'}')?;
                return elements;
            }
        }
    }

    /// Nothing between two commas, or after the last, is not an element.
    fn array(&mut self) -> Option<Vec<&'a [u8]>> {
        self.skip(b'[')?;
        let mut elements = Vec::new();
        loop {
            self.skip_space();
            let start = self.at;
            self.skip_value()?;
            let element = self.bytes[start..self.at].trim_ascii_end();
            if !element.is_empty() {
                elements.push(element);
            }
            if self.skip(b',').is_none() {
                self.skip(b']')?;
                return Some(elements);
            }
        }
    }

    fn skip_string(&mut self, quote: u8) -> Option<()> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'\\' => self.at += 2,
                byte => {
                    self.at += 1;
                    if byte == quote {
                        return Some(());
                    }
                }
            }
        }
    }

    /// To the comma or the bracket after a value.
    fn skip_value(&mut self) -> Option<()> {
        let mut closing = Vec::new();
        // An apostrophe quotes only where a value or a key can begin.
        let mut is_beginning = true;
        loop {
            let byte = self.peek()?;
            match byte {
                b',' if closing.is_empty() => return Some(()),
                b'"' => self.skip_string(byte)?,
                b'\'' if is_beginning => self.skip_string(byte)?,
                b'}' | b']' => match closing.pop() {
                    None => return Some(()),
                    Some(expected) if expected != byte => return None,
                    Some(_) => self.at += 1,
                },
                _ => {
                    match byte {
                        b'{' => closing.push(b'}'),
                        b'[' => closing.push(b']'),
                        _ => {}
                    }
                    self.at += 1;
                }
            }
            is_beginning = match byte {
                b'{' | b'[' | b',' | b':' => true,
                b' ' | b'\t' | b'\n' | b'\r' => is_beginning,
                _ => false,
            };
        }
    }

    fn malformed_value(&mut self, text: &'a str) -> Option<(String, &'a str)> {
        let mut path: Vec<&str> = Vec::new();
        // The last string, which is a key if a colon follows.
        let mut string = "";
        while let Some(byte) = self.peek() {
            let start = self.at;
            match byte {
                b'"' | b'\'' => {
                    self.skip_string(byte)?;
                    let end = self.at;
                    self.skip_space();
                    if byte == b'\'' && self.peek() != Some(b':') {
                        return Some((named(&path), &text[start..end]));
                    }
                    string = &text[start + 1..end - 1];
                }
                b':' => {
                    *path.last_mut()? = string;
                    self.at += 1;
                }
                b'{' | b'[' => {
                    path.push("");
                    self.at += 1;
                }
                b'}' | b']' => {
                    path.pop()?;
                    self.at += 1;
                }
                b',' | b' ' | b'\t' | b'\n' | b'\r' => self.at += 1,
                _ => {
                    while !matches!(
                        self.peek(),
                        None | Some(
                            b',' | b':'
                                | b'{'
                                | b'}'
                                | b'['
                                | b']'
                                | b' '
                                | b'\t'
                                | b'\n'
                                | b'\r'
                                | b'"'
                                | b'\''
                        )
                    ) {
                        self.at += 1;
                    }
                    let value = &text[start..self.at];
                    self.skip_space();
                    if self.peek() == Some(b':') {
                        string = value;
                    } else if serde_json::from_str::<IgnoredAny>(value).is_err() {
                        return Some((named(&path), value));
                    }
                }
            }
        }
        None
    }
}

fn named(path: &[&str]) -> String {
    let names: Vec<&str> = path.iter().filter(|name| !name.is_empty()).copied().collect();
    names.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_malformed_value_is_named() {
        for (element, expected) in [
            (r#"{"a":1,"value":{"t":NaN}}"#, Some(("value.t", "NaN"))),
            (r#"{"value":{"a":[1,-Infinity]},"b":01}"#, Some(("value.a", "-Infinity"))),
            (r#"{"value":{"a":[{"x":1}],"b":01}}"#, Some(("value.b", "01"))),
            ("+1", Some(("", "+1"))),
            ("{'a':nan}", Some(("a", "nan"))),
            ("{'a': 'b' }", Some(("a", "'b'"))),
            ("{a : 1, b : {c:inf}}", Some(("b.c", "inf"))),
            (r#"{"a":"\"NaN","b":1,}"#, None),
            (r#"{"a":1}}:"#, None),
        ] {
            let expected = expected.map(|(path, value)| (path.to_owned(), value));
            assert_eq!(malformed_value(element), expected, "{element}");
        }
    }
}
