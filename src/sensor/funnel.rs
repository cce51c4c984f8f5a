//! The way from the sensors' actors to the writer, which is on another thread. What they say in one
//! go crosses together, in one message and for one wake-up: each by itself cost as much as decoding
//! it.

use std::cell::RefCell;
use std::rc::Rc;

use actix::Recipient;

use crate::domain::Uplink;
use crate::writer::Write;

/// Collects what goes up, on the thread of the actors.
#[derive(Clone, Debug)]
pub(super) struct Funnel(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    #[expect(clippy::vec_box, reason = "they come boxed and go boxed")]
    waiting: RefCell<Vec<Box<Uplink>>>,
    writer: Recipient<Write>,
}

impl Funnel {
    pub(super) fn new(writer: Recipient<Write>) -> Self {
        Self(Rc::new(Inner { waiting: RefCell::default(), writer }))
    }

    /// Passes a message on, together with those that follow at once.
    pub(super) fn pass(&self, uplink: Box<Uplink>) {
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.is_empty() {
            // Its turn comes after those actors that have been given something to do by now.
            let funnel = self.clone();
            actix_rt::spawn(async move { funnel.empty() });
        }
        waiting.push(uplink);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight, and a writer that is gone loses the ack_tokens, which is noticed"
    )]
    fn empty(&self) {
        let together = self.0.waiting.take();
        self.0.writer.do_send(Write(together));
    }
}
