//! The byte queues between a connection's owner and `h2`, which reads and writes through tokio's traits. Nothing here waits:
//! a queue that is empty or full is `Pending`, and whoever fills or empties it polls again.
//!
//! `h2` does all that it can read before it returns, and one read of the loop's (256 KiB) holds fifteen thousand PINGs. So it is
//! given a number of frames at a time ([`Frames`]): whoever floods a connection waits itself, and not everybody else.

use std::cell::RefCell;
use std::io::Result;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Nothing more is written while so much has not been sent: what comes later waits in its stream, where it can be held.
const OUTPUT_BYTES_MAX: usize = 256 << 10;

/// What a client says before its first frame (RFC 9113 §3.4).
const PREFACE_BYTES: usize = 24;

/// Of a frame, before its payload (RFC 9113 §4.1). It begins with the payload's length.
const HEAD_BYTES: usize = 9;
const LENGTH_BYTES: usize = 3;

/// Where the frames of a connection begin.
struct Frames {
    /// So much of a head has been seen.
    head_bytes: usize,
    /// Of the payload, as far as the head has told; then, what is still to come of it.
    payload_bytes: usize,
}

impl Frames {
    fn new() -> Frames {
        Frames { head_bytes: HEAD_BYTES, payload_bytes: PREFACE_BYTES }
    }

    /// How much of the input lies before the frame that would be one too many.
    fn walk(&mut self, input: &[u8], count: usize) -> usize {
        let (mut at, mut begun) = (0, 0);
        while at < input.len() {
            if self.head_bytes == HEAD_BYTES {
                let here = self.payload_bytes.min(input.len() - at);
                (at, self.payload_bytes) = (at + here, self.payload_bytes - here);
                if self.payload_bytes == 0 {
                    self.head_bytes = 0;
                }
                continue;
            }
            if self.head_bytes == 0 {
                if begun == count {
                    break;
                }
                begun += 1;
            }
            if self.head_bytes < LENGTH_BYTES {
                self.payload_bytes = self.payload_bytes << 8 | usize::from(input[at]);
            }
            (at, self.head_bytes) = (at + 1, self.head_bytes + 1);
        }
        at
    }
}

struct Queues {
    frames: Frames,
    input: BytesMut,
    /// There are more frames than were taken.
    has_more: bool,
    output: BytesMut,
    /// Something could not be written.
    is_blocked: bool,
    /// The rest is small and must leave: there is always room.
    is_unbounded: bool,
}

/// One end is h2's, the other the adapter's.
#[derive(Clone)]
pub struct Io(Rc<RefCell<Queues>>);

impl Default for Io {
    fn default() -> Io {
        Io(Rc::new(RefCell::new(Queues {
            frames: Frames::new(),
            input: BytesMut::new(),
            has_more: false,
            output: BytesMut::new(),
            is_blocked: false,
            is_unbounded: false,
        })))
    }
}

impl Io {
    /// Takes so many frames from the front of what a client has sent, unless some that were taken have not been read.
    pub fn take_frames(&self, input: &mut BytesMut, count: usize) {
        let queues = &mut *self.0.borrow_mut();
        if !queues.input.is_empty() {
            return;
        }
        let bytes = queues.frames.walk(input, count);
        queues.has_more = bytes < input.len();
        if queues.has_more {
            queues.input = input.split_to(bytes);
        } else {
            std::mem::swap(&mut queues.input, input);
        }
    }

    /// The buffer goes back to whom it belongs, if all of it was read and taken.
    pub fn give_buffer_back(&self, input: &mut BytesMut) {
        let lent = &mut self.0.borrow_mut().input;
        if lent.is_empty() && input.is_empty() {
            std::mem::swap(lent, input);
        }
    }

    /// Whether there is input that could be read without anything new.
    pub fn has_input(&self) -> bool {
        let queues = self.0.borrow();
        queues.has_more || !queues.input.is_empty()
    }

    /// Lends the output of the connection, and takes it back by the same way.
    pub fn swap_output(&self, output: &mut BytesMut) {
        std::mem::swap(&mut self.0.borrow_mut().output, output);
    }

    /// Nothing is read any more.
    pub fn close(&self) {
        let mut queues = self.0.borrow_mut();
        queues.input = BytesMut::new();
        (queues.has_more, queues.is_blocked) = (false, false);
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
