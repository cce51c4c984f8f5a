//! Collects what the sensors' actors send up in one turn of the thread and passes it to the writer, on
//! another thread, in one message. Used by the actors and the registry. One wake-up per message cost
//! as much as decoding it.

use std::cell::RefCell;
use std::rc::Rc;

use actix::Recipient;

use crate::domain::Uplink;
use crate::writer::Write;

/// Shared by the actors of one thread.
#[derive(Clone, Debug)]
pub(super) struct UplinkBuffer(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    #[expect(clippy::vec_box, reason = "they arrive boxed and leave boxed")]
    waiting: RefCell<Vec<Box<Uplink>>>,
    writer: Recipient<Write>,
}

impl UplinkBuffer {
    pub(super) fn new(writer: Recipient<Write>) -> Self {
        Self(Rc::new(Inner { waiting: RefCell::default(), writer }))
    }

    /// Passes a message on, together with those that follow in the same turn.
    pub(super) fn push(&self, uplink: Box<Uplink>) {
        let mut waiting = self.0.waiting.borrow_mut();
        if waiting.is_empty() {
            // Runs after the actors that are ready now.
            let buffer = self.clone();
            actix_rt::spawn(async move { buffer.flush() });
        }
        waiting.push(uplink);
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the inbound window bounds what is in flight; if the writer has stopped, the tokens are lost and reported"
    )]
    fn flush(&self) {
        let uplinks = self.0.waiting.take();
        self.0.writer.do_send(Write(uplinks));
    }
}
