//! The byte queues between a connection's owner and `h2`, which reads and writes through tokio's traits. Nothing here waits:
//! a queue that is empty or full is `Pending`, and whoever fills or empties it polls again.

use std::cell::RefCell;
use std::io::Result;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing more is written while so much has not been sent: what comes later waits in its stream, where it can be held.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

#[derive(Default)]
struct Queues {
    input: BytesMut,
    output: BytesMut,
    /// Something could not be written.
    is_blocked: bool,
    /// The rest is small and must leave: there is always room.
    is_unbounded: bool,
}

/// One end is h2's, the other the adapter's.
#[derive(Clone, Default)]
pub struct Io(Rc<RefCell<Queues>>);

impl Io {
    /// Lends the queues of the connection, and takes them back by the same way.
    pub fn swap(&self, input: &mut BytesMut, output: &mut BytesMut) {
        let mut queues = self.0.borrow_mut();
        std::mem::swap(&mut queues.input, input);
        std::mem::swap(&mut queues.output, output);
    }

    /// Whether something waits for room in the output.
    pub fn is_blocked(&self) -> bool {
        self.0.borrow().is_blocked
    }

    /// Another attempt is made.
    pub fn unblock(&self) {
        self.0.borrow_mut().is_blocked = false;
    }

    pub fn unbind(&self) {
        self.0.borrow_mut().is_unbounded = true;
    }

    /// Whether there is room in this output.
    pub fn has_room(output: &BytesMut) -> bool {
        output.len() < OUTPUT_BYTES_MAX
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let input = &mut self.0.borrow_mut().input;
        if input.is_empty() {
            return Poll::Pending;
        }
        let count = input.len().min(buffer.remaining());
        buffer.put_slice(&input[..count]);
        input.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let mut queues = self.0.borrow_mut();
        if !queues.is_unbounded && !Io::has_room(&queues.output) {
            queues.is_blocked = true;
            return Poll::Pending;
        }
        // A frame, which is no longer than 16 KiB.
        queues.output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        slices: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let mut queues = self.0.borrow_mut();
        if !queues.is_unbounded && !Io::has_room(&queues.output) {
            queues.is_blocked = true;
            return Poll::Pending;
        }
        slices.iter().for_each(|slice| queues.output.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}
