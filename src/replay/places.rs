//! What a replay has on its way: each message under the number of its ack_token. Pure.

use crate::domain::Kind;

/// One message on its way.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// The row that it was kept in.
    pub(super) rejection: i64,
    /// Whose account it is on.
    pub(super) kind: Option<Kind>,
    /// How many items it holds.
    pub(super) items: u32,
}

/// The messages of a page that are on their way. Numbers are never used twice.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The number of the first of the page.
    first: u64,
    page: Vec<Option<Place>>,
    open: usize,
}

impl Places {
    /// The number of the message that is admitted next.
    pub(super) fn next(&self) -> u64 {
        self.first + self.page.len() as u64
    }

    pub(super) fn admit(&mut self, place: Place) {
        self.page.push(Some(place));
        self.open += 1;
    }

    /// The message has come to its end, one way or the other; none where it had before.
    pub(super) fn end(&mut self, number: u64) -> Option<Place> {
        let index = usize::try_from(number.checked_sub(self.first)?).ok()?;
        let place = self.page.get_mut(index)?.take()?;
        self.open -= 1;
        if self.open == 0 {
            self.first = self.next();
            self.page.clear();
        }
        Some(place)
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.open == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_ends_once_and_no_number_comes_twice() {
        let mut places = Places::default();
        let place = |items| Place { rejection: 0, kind: None, items };
        for round in 0..2 {
            let first = places.next();
            assert_eq!(first, 2 * round);
            places.admit(place(1));
            places.admit(place(2));
            assert_eq!(places.end(first + 1), Some(place(2)));
            assert_eq!(places.end(first + 1), None);
            assert!(!places.is_empty());
            assert_eq!(places.end(first), Some(place(1)));
            assert!(places.is_empty());
            assert_eq!(places.end(first), None, "of a page before");
        }
        assert_eq!(places.end(9), None);
    }
}
