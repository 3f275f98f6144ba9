//! A client of gRPC that needs no runtime: `h2`'s client side on two byte queues. It is looked at whenever something came for
//! it or went from it; nothing here waits.

use std::cell::RefCell;
use std::future::Future;
use std::io::Result as IoResult;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request as HttpRequest};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// In front of each message: a flag and its length.
const PREFIX_BYTES: usize = 5;

#[derive(Clone, Default)]
struct Io(Rc<RefCell<Queues>>);

#[derive(Default)]
struct Queues {
    input: BytesMut,
    output: BytesMut,
    has_ended: bool,
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let queues = &mut *self.0.borrow_mut();
        if queues.input.is_empty() {
            return if queues.has_ended { Poll::Ready(Ok(())) } else { Poll::Pending };
        }
        let count = queues.input.len().min(buffer.remaining());
        buffer.put_slice(&queues.input[..count]);
        queues.input.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        self.0.borrow_mut().output.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<IoResult<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<IoResult<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What a call is about: an operation of the history, or the watches of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    Op(usize),
    Watches,
}

struct Asked {
    about: About,
    response: Option<ResponseFuture>,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    /// What has come and is no whole message yet.
    bytes: BytesMut,
    /// What came was read, and the window is still closed.
    unread: usize,
}

/// What the client was told.
#[derive(Debug)]
pub enum Heard {
    Message(About, Bytes),
    /// The status and its text.
    Ended(About, u16, String),
    /// The stream or the connection broke off: nothing is known of the call.
    Broken(About),
    /// What no server may say.
    Nonsense(About, String),
}

pub struct Client {
    io: Io,
    requests: SendRequest<Bytes>,
    connection: Connection<Io, Bytes>,
    asked: Vec<Asked>,
    /// It opens windows for what it reads.
    pub reads: bool,
    is_over: bool,
}

/// How much may come before it is read, on a stream and on the connection.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    pub stream_bytes: u32,
    pub connection_bytes: u32,
}

impl Client {
    pub fn new(windows: Windows) -> Client {
        let io = Io::default();
        let mut builder = Builder::new();
        builder
            .initial_window_size(windows.stream_bytes)
            .initial_connection_window_size(windows.connection_bytes)
            .enable_push(false);
        let mut handshake = Box::pin(builder.handshake::<_, Bytes>(io.clone()));
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Ok((requests, connection))) = handshake.as_mut().poll(cx) else {
            panic!("a client of HTTP/2 need not wait to begin")
        };
        Client { io, requests, connection, asked: Vec::new(), reads: true, is_over: false }
    }

    /// Whether it may still ask: nobody told it to go elsewhere.
    pub fn may_ask(&mut self) -> bool {
        let cx = &mut Context::from_waker(Waker::noop());
        !self.is_over && !matches!(self.requests.poll_ready(cx), Poll::Ready(Err(_)))
    }

    /// False if the connection takes no more calls.
    pub fn ask(&mut self, about: About, path: &str, timeout_ms: Option<u64>) -> bool {
        let mut request = HttpRequest::post(format!("http://sim{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(())
            .expect("a request");
        if let Some(ms) = timeout_ms {
            let value = format!("{ms}m").parse().expect("a header");
            request.headers_mut().insert("grpc-timeout", value);
        }
        if !self.may_ask() {
            return false;
        }
        let Ok((response, send)) = self.requests.send_request(request, false) else { return false };
        let (response, bytes) = (Some(response), BytesMut::new());
        self.asked.push(Asked { about, response, send, body: None, bytes, unread: 0 });
        true
    }

    pub fn has(&self, about: About) -> bool {
        self.asked.iter().any(|asked| asked.about == about)
    }

    /// One message of a call, in its frame.
    pub fn send(&mut self, about: About, message: &[u8]) {
        let length = u32::try_from(message.len()).expect("a message is short").to_be_bytes();
        let framed: Vec<u8> = [&[0][..], &length, message].concat();
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.about == about) {
            // An error: the stream is gone, and that is heard, too.
            let _ = asked.send.send_data(framed.into(), false);
        }
    }

    /// It has no more to say in this call.
    pub fn end(&mut self, about: About) {
        if let Some(asked) = self.asked.iter_mut().find(|asked| asked.about == about) {
            let _ = asked.send.send_data(Bytes::new(), true);
        }
    }

    /// It waits for this call no longer.
    pub fn give_up(&mut self, about: About) -> bool {
        let Some(at) = self.asked.iter().position(|asked| asked.about == about) else { return false };
        let mut asked = self.asked.remove(at);
        asked.send.send_reset(h2::Reason::CANCEL);
        true
    }

    /// The other side says nothing more.
    pub fn on_end(&mut self) {
        self.io.0.borrow_mut().has_ended = true;
    }

    pub fn on_bytes(&mut self, bytes: &[u8]) {
        self.io.0.borrow_mut().input.extend_from_slice(bytes);
    }

    pub fn take_output(&mut self) -> BytesMut {
        std::mem::take(&mut self.io.0.borrow_mut().output)
    }

    /// Goes round until nothing moves, and tells what came of it.
    pub fn turn(&mut self) -> Vec<Heard> {
        let cx = &mut Context::from_waker(Waker::noop());
        let mut heard = Vec::new();
        loop {
            let written = self.io.0.borrow().output.len();
            if !self.is_over {
                self.is_over = Pin::new(&mut self.connection).poll(cx).is_ready();
            }
            let before = heard.len();
            let (reads, is_over) = (self.reads, self.is_over);
            self.asked.retain_mut(|asked| asked.poll(reads, is_over, cx, &mut heard));
            if !self.is_over {
                // It writes down what the calls gave it.
                self.is_over = Pin::new(&mut self.connection).poll(cx).is_ready();
            }
            let moved = heard.len() > before || self.io.0.borrow().output.len() > written;
            if !moved && (is_over || !self.is_over) {
                return heard;
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.is_over
    }
}

impl Asked {
    /// False if it is over.
    fn poll(&mut self, reads: bool, is_over: bool, cx: &mut Context<'_>, heard: &mut Vec<Heard>) -> bool {
        let about = self.about;
        if let Some(response) = &mut self.response {
            match Pin::new(response).poll(cx) {
                Poll::Ready(Ok(response)) => {
                    self.response = None;
                    if response.status() != 200 {
                        heard.push(Heard::Nonsense(about, format!("HTTP status {}", response.status())));
                        return false;
                    }
                    if let Some((code, text)) = status(response.headers()) {
                        heard.push(Heard::Ended(about, code, text));
                        return false;
                    }
                    self.body = Some(response.into_body());
                }
                Poll::Ready(Err(_)) => {
                    heard.push(Heard::Broken(about));
                    return false;
                }
                Poll::Pending if is_over => {
                    heard.push(Heard::Broken(about));
                    return false;
                }
                Poll::Pending => return true,
            }
        }
        let Some(body) = &mut self.body else { return true };
        loop {
            match body.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) => {
                    self.unread += bytes.len();
                    self.bytes.extend_from_slice(&bytes);
                }
                Poll::Ready(Some(Err(_))) => {
                    heard.push(Heard::Broken(about));
                    return false;
                }
                Poll::Ready(None) => break,
                Poll::Pending => {
                    if reads && self.unread > 0 {
                        // It fails where the stream is gone.
                        let _ = body.flow_control().release_capacity(std::mem::take(&mut self.unread));
                    }
                    messages(about, &mut self.bytes, heard);
                    if is_over {
                        heard.push(Heard::Broken(about));
                    }
                    return !is_over;
                }
            }
        }
        messages(about, &mut self.bytes, heard);
        match body.poll_trailers(cx) {
            Poll::Ready(Ok(Some(trailers))) => heard.push(match status(&trailers) {
                Some(_) if !self.bytes.is_empty() => {
                    Heard::Nonsense(about, format!("{} bytes of half a message", self.bytes.len()))
                }
                Some((code, text)) => Heard::Ended(about, code, text),
                None => Heard::Nonsense(about, "trailers without a status".into()),
            }),
            Poll::Ready(Ok(None)) => heard.push(Heard::Nonsense(about, "an end without a status".into())),
            Poll::Ready(Err(_)) => heard.push(Heard::Broken(about)),
            Poll::Pending if is_over => heard.push(Heard::Broken(about)),
            Poll::Pending => return true,
        }
        false
    }
}

/// Whole messages.
fn messages(about: About, bytes: &mut BytesMut, heard: &mut Vec<Heard>) {
    while let Some((&[_, a, b, c, d], _)) = bytes.split_first_chunk::<PREFIX_BYTES>() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if bytes.len() < PREFIX_BYTES + length {
            return;
        }
        bytes.advance(PREFIX_BYTES);
        heard.push(Heard::Message(about, bytes.split_to(length).freeze()));
    }
}

fn status(headers: &HeaderMap) -> Option<(u16, String)> {
    let code = headers.get("grpc-status")?.to_str().ok()?.parse().ok()?;
    let text = headers.get("grpc-message").and_then(|text| text.to_str().ok()).unwrap_or("");
    Some((code, text.to_string()))
}
