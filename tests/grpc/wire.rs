//! A gRPC client and the adapter, joined by two byte queues, with a node of one map behind. What was not answered by itself
//! is done by hand: `calls` are kept, and replies can be made up.

use std::cell::RefCell;
use std::future::Future;
use std::io::Result as IoResult;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request as HttpRequest};
use pawl::api::{Body, Call, Header, Limits, Reply, Request, Tag};
use pawl::base::Mono;
use pawl::proto::Adapter;
use pawl::proto::grpc::{GrpcAdapter, Settings};
use pawl::proto::line::ServerInfo;
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::fuzz_bodies::fake_node::{CLUSTER, FakeNode, MEMBER};

#[derive(Clone, Default)]
struct Io(Rc<RefCell<(BytesMut, BytesMut)>>);

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<IoResult<()>> {
        let input = &mut self.0.borrow_mut().0;
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
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<IoResult<usize>> {
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<IoResult<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<IoResult<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A call, as the client sees it.
struct Asked {
    response: ResponseFuture,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    bytes: BytesMut,
    status: Option<(u16, String)>,
    http: u16,
    /// Opens the window for what it has read.
    reads: bool,
}

pub struct Wire {
    pub adapter: GrpcAdapter,
    pub node: FakeNode,
    /// What was asked, from the beginning.
    pub calls: Vec<Call>,
    /// The node is silent: `calls` are answered by hand.
    pub is_silent: bool,
    io: Io,
    requests: SendRequest<Bytes>,
    connection: Connection<Io, Bytes>,
    asked: Vec<Asked>,
    /// Bytes that go over in one piece.
    pub piece_bytes: usize,
    /// The socket takes nothing from the adapter.
    pub is_stuck: bool,
    pub output: BytesMut,
    pub is_closed: bool,
}

pub fn limits() -> Limits {
    Limits { request_bytes_max: 1 << 20, txn_ops_max: 128 }
}

pub fn info() -> Arc<ServerInfo> {
    Arc::new(ServerInfo {
        cluster: CLUSTER,
        member: MEMBER,
        version: "0.1.0",
        limits: limits(),
        config: Vec::new(),
    })
}

impl Wire {
    pub fn new() -> Wire {
        Wire::with(Settings::default(), 65_535)
    }

    /// `window_bytes`: of each stream, for answers.
    pub fn with(settings: Settings, window_bytes: u32) -> Wire {
        let io = Io::default();
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window_bytes).initial_connection_window_size(16 << 20);
        let mut handshake = Box::pin(builder.handshake::<_, Bytes>(io.clone()));
        let cx = &mut Context::from_waker(Waker::noop());
        let Poll::Ready(Ok((requests, connection))) = handshake.as_mut().poll(cx) else {
            panic!("a client need not wait to begin")
        };
        let mut wire = Wire {
            adapter: GrpcAdapter::new(info(), Arc::new(settings)),
            node: FakeNode::default(),
            calls: Vec::new(),
            is_silent: false,
            io,
            requests,
            connection,
            asked: Vec::new(),
            piece_bytes: usize::MAX,
            is_stuck: false,
            output: BytesMut::new(),
            is_closed: false,
        };
        wire.spin();
        wire
    }

    pub fn open(&mut self, path: &str, headers: &[(&str, &str)]) -> usize {
        let mut request =
            HttpRequest::post(format!("http://x{path}")).header("te", "trailers").body(()).unwrap();
        request.headers_mut().insert("content-type", "application/grpc".parse().unwrap());
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            request.headers_mut().insert(name, value.parse().unwrap());
        }
        self.open_with(request)
    }

    pub fn open_with(&mut self, request: HttpRequest<()>) -> usize {
        let (response, send) = self.requests.send_request(request, false).unwrap();
        let (body, bytes) = (None, BytesMut::new());
        self.asked.push(Asked { response, send, body, bytes, status: None, http: 0, reads: true });
        self.asked.len() - 1
    }

    pub fn send(&mut self, call: usize, message: &impl Message) {
        self.send_raw(call, &framed(&message.encode_to_vec()));
    }

    pub fn send_raw(&mut self, call: usize, bytes: &[u8]) {
        self.asked[call].send.send_data(Bytes::copy_from_slice(bytes), false).unwrap();
        self.spin();
    }

    /// The client has no more to say. The server may not have waited for that.
    pub fn end(&mut self, call: usize) {
        let _ = self.asked[call].send.send_data(Bytes::new(), true);
        self.spin();
    }

    /// Sends it when the others do.
    pub fn push(&mut self, call: usize, message: &impl Message) {
        let bytes = Bytes::from(framed(&message.encode_to_vec()));
        self.asked[call].send.send_data(bytes, false).unwrap();
    }

    /// What was pushed has left the client when it is given up.
    pub fn give_up(&mut self, call: usize) {
        let cx = &mut Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.connection).poll(cx);
        self.asked[call].send.send_reset(h2::Reason::CANCEL);
        let _ = Pin::new(&mut self.connection).poll(cx);
    }

    pub fn reset(&mut self, call: usize) {
        self.give_up(call);
        self.spin();
    }

    /// Whether what comes is taken.
    pub fn read(&mut self, call: usize, reads: bool) {
        let asked = &mut self.asked[call];
        asked.reads = reads;
        if let Some(body) = &mut asked.body {
            let used = body.flow_control().used_capacity();
            if reads {
                body.flow_control().release_capacity(used).unwrap();
            }
        }
        self.spin();
    }

    /// Goes round until nothing moves.
    pub fn spin(&mut self) {
        loop {
            let cx = &mut Context::from_waker(Waker::noop());
            let _ = Pin::new(&mut self.connection).poll(cx);
            self.asked.iter_mut().for_each(|asked| poll(asked, cx));
            let _ = Pin::new(&mut self.connection).poll(cx);
            let mut sent = std::mem::take(&mut self.io.0.borrow_mut().1);
            let mut moved = !sent.is_empty();
            while !sent.is_empty() {
                let mut piece = sent.split_to(sent.len().min(self.piece_bytes));
                self.decode(&mut piece);
                while self.adapter.stalled() && !self.adapter.awaits_answers() {
                    self.decode(&mut piece);
                }
                assert!(piece.is_empty(), "the adapter keeps what is not complete by itself");
            }
            self.write();
            if !self.is_stuck && !self.output.is_empty() {
                let came = std::mem::take(&mut self.output);
                self.io.0.borrow_mut().0.extend_from_slice(&came);
                moved = true;
            }
            self.is_closed |= self.adapter.closing();
            if !moved {
                return;
            }
        }
    }

    pub fn decode(&mut self, piece: &mut BytesMut) {
        let mut calls = Vec::new();
        self.adapter.decode(piece, &mut calls, &mut self.output).unwrap();
        self.pass_on(calls);
    }

    fn write(&mut self) {
        let mut calls = Vec::new();
        self.adapter.write(&mut calls, &mut self.output);
        self.pass_on(calls);
    }

    pub fn pass_on(&mut self, calls: Vec<Call>) {
        for call in calls {
            self.calls.push(call.clone());
            if !self.is_silent {
                for reply in self.node.answer(1, call) {
                    self.adapter.encode(reply, &mut self.output);
                }
            }
        }
    }

    pub fn set_time(&mut self, now: Mono) {
        let mut calls = Vec::new();
        self.adapter.set_time(now, &mut calls, &mut self.output);
        self.pass_on(calls);
        self.spin();
    }

    /// The node says something by itself.
    pub fn tell(&mut self, tag: Tag, revision: u64, body: Body, more: bool) {
        let header = Header { cluster: CLUSTER, member: MEMBER, revision, term: 2 };
        self.adapter.encode(Reply { conn: 1, tag, header, body, more }, &mut self.output);
        self.spin();
    }

    /// Tag and request of what was asked last.
    pub fn last_request(&self) -> (Tag, Request) {
        let found = self.calls.iter().rev().find_map(|call| match call {
            Call::Request { tag, request } => Some((*tag, request.clone())),
            _ => None,
        });
        found.expect("something was asked")
    }

    /// The messages that came since this was last asked.
    pub fn messages<M: Message + Default>(&mut self, call: usize) -> Vec<M> {
        let bytes = &mut self.asked[call].bytes;
        let mut messages = Vec::new();
        while bytes.len() >= 5 {
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            if bytes.len() < 5 + length {
                break;
            }
            bytes.advance(5);
            messages.push(M::decode(bytes.split_to(length).freeze()).unwrap());
        }
        messages
    }

    /// What came behind the last whole message.
    pub fn half_a_message_bytes(&self, call: usize) -> usize {
        self.asked[call].bytes.len()
    }

    pub fn status(&self, call: usize) -> Option<(u16, &str)> {
        self.asked[call].status.as_ref().map(|(code, text)| (*code, text.as_str()))
    }

    /// Of the response, once it has come.
    pub fn http(&self, call: usize) -> u16 {
        self.asked[call].http
    }

    pub fn unary<M: Message + Default>(
        &mut self,
        path: &str,
        message: &impl Message,
    ) -> Result<M, (u16, String)> {
        let call = self.open(path, &[]);
        self.send(call, message);
        self.end(call);
        let answers = self.messages(call);
        let (code, text) = self.status(call).expect("it has ended");
        if code != 0 {
            assert!(answers.is_empty());
            return Err((code, text.to_string()));
        }
        Ok(answers.into_iter().next().expect("an answer"))
    }
}

pub fn framed(message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[0][..], &length, message].concat()
}

fn poll(asked: &mut Asked, cx: &mut Context<'_>) {
    if asked.body.is_none()
        && asked.http == 0
        && let Poll::Ready(response) = Pin::new(&mut asked.response).poll(cx)
    {
        match response {
            Ok(response) => {
                asked.http = response.status().as_u16();
                asked.status = status(response.headers());
                asked.body = Some(response.into_body());
            }
            Err(_) => asked.http = 999,
        }
    }
    let Some(body) = &mut asked.body else { return };
    while let Poll::Ready(Some(Ok(bytes))) = body.poll_data(cx) {
        if asked.reads {
            body.flow_control().release_capacity(bytes.len()).unwrap();
        }
        asked.bytes.extend_from_slice(&bytes);
    }
    if let Poll::Ready(Ok(Some(trailers))) = body.poll_trailers(cx) {
        asked.status = status(&trailers);
    }
}

fn status(headers: &HeaderMap) -> Option<(u16, String)> {
    let code = headers.get("grpc-status")?.to_str().unwrap().parse().unwrap();
    let text = headers.get("grpc-message").map_or("", |text| text.to_str().unwrap());
    Some((code, text.to_string()))
}
