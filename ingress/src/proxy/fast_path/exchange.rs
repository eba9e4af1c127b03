//! One request and its answer, between the sockets of a client and an endpoint.

use super::answer::{self, Answer, Manner};
use super::buffers::Buffers;
use crate::annotations::upstream::retry::Failure;
use crate::balance::Moment;
use crate::balance::kept::Seats;
use crate::listener::client_stream::ClientStream;
use crate::proxy::SEND_TIMEOUT;
use crate::proxy::upstream::{Attempts, Client};
use crate::snapshot::Route;
use pingora::http::RequestHeader;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::io::poll_read_buf;

/// What went to the client.
#[derive(Debug, Default)]
pub struct Sent {
    /// The status of its answer, once there is one; before that of what is only informational.
    pub status: Option<u16>,
    /// The answer's head.
    pub head_bytes: u64,
    /// All of it.
    pub bytes: u64,
    /// The content that came from the endpoint.
    pub payload_bytes: u64,
}

/// Why an exchange ended before its time.
#[derive(Debug)]
pub enum Broken {
    /// The client got nothing yet: another endpoint may be asked, and `None` says there is none here.
    Early(Option<Failure>),
    /// The client got a part.
    Endpoint(String),
    /// The client is gone.
    Client(io::Error),
}

/// Who takes part in it.
pub struct Exchange<'a> {
    /// The client's connection.
    pub client: &'a mut ClientStream,
    /// What the client asked.
    pub request: &'a RequestHeader,
    /// Where it goes.
    pub route: &'a Route,
    /// Which endpoints, and what is known of them.
    pub attempts: &'a mut Attempts,
    /// What is sent to the endpoint; then what comes from it.
    pub buffers: &'a mut Buffers,
    /// The client speaks TLS with us.
    pub tls: bool,
    /// The client's connection ends with it.
    pub closes: bool,
    /// Room for idle connections.
    pub seats: &'a Seats,
    /// What went to the client.
    pub sent: &'a mut Sent,
}

impl Exchange<'_> {
    /// Sends the request to an endpoint and passes on the answer.
    pub async fn run(mut self) -> Result<(), Broken> {
        let upstream = &self.route.settings.upstream;
        let endpoint = self.attempts.next_endpoint(self.route).ok_or(Broken::Early(None))?;
        let idle_timeout = self.route.options.endpoint_connections.idle_timeout;
        let kept = endpoint.kept.take(Moment::now(), idle_timeout);
        let reused = kept.is_some();
        let mut stream = match kept {
            Some(stream) => stream,
            None => connect(endpoint.address, upstream.connect_timeout).await?,
        };
        self.attempts.has_connection(reused);
        let sending = stream.write_all(&self.buffers.out);
        early(timeout(upstream.send_timeout, sending).await)?;
        self.buffers.out.clear();

        let (answer, used) = self.answer(&mut stream).await?;
        let is_complete = self.body(&mut stream, &answer, used).await?;
        self.attempts.ended();
        if answer.keeps && is_complete {
            endpoint.kept.keep(stream, Moment::now(), self.seats);
        }
        Ok(())
    }

    /// Waits for the answer and writes its head, not yet to the client. Also says how much of what was
    /// read went into it.
    async fn answer(&mut self, stream: &mut TcpStream) -> Result<(Answer, usize), Broken> {
        let mut used = 0;
        loop {
            let arrived = &self.buffers.endpoint[used..];
            let answer = if arrived.is_empty() { Ok(None) } else { self.head(used) };
            match answer {
                Ok(Some(answer)) if answer.status < 200 => {
                    used += answer.head_bytes;
                    self.sent.head_bytes += self.buffers.out.len() as u64;
                    self.sent.status.get_or_insert(answer.status);
                    self.write(0..0).await?;
                }
                Ok(Some(answer)) => {
                    used += answer.head_bytes;
                    self.sent.head_bytes += self.buffers.out.len() as u64;
                    return Ok((answer, used));
                }
                Ok(None) => match self.read(stream).await? {
                    Ok(0) => return Err(self.failed(Failure::Error)),
                    Ok(_) => {}
                    Err(failure) => return Err(self.failed(failure)),
                },
                Err(answer::Invalid) => return Err(self.failed(Failure::InvalidHeader)),
            }
        }
    }

    fn head(&mut self, used: usize) -> Result<Option<Answer>, answer::Invalid> {
        let options = &self.route.options;
        let client = Client { request: self.request, tls: self.tls, values: None };
        let cookie = self.attempts.set_cookie(self.route, &client);
        let manner = Manner {
            to_head: self.request.method == http::Method::HEAD,
            closes: self.closes,
            endpoint_server: options.headers.endpoint_server,
            server_tokens: options.headers.server_tokens,
            hsts: options.hsts.value.as_ref().filter(|_| self.tls),
            cookie: cookie.as_deref(),
        };
        let Buffers { endpoint, out, .. } = &mut *self.buffers;
        let answer = answer::pass_on(&endpoint[used..], &manner, out)?;
        if let Some(answer) = &answer
            && answer.status >= 200
        {
            self.attempts.has_answer(answer.status);
        }
        Ok(answer)
    }

    /// Passes on the body. Whether the endpoint said nothing after it.
    async fn body(
        &mut self,
        stream: &mut TcpStream,
        answer: &Answer,
        mut at: usize,
    ) -> Result<bool, Broken> {
        self.sent.status = Some(answer.status);
        let mut body = answer.body.clone();
        loop {
            let Buffers { endpoint, out, .. } = &mut *self.buffers;
            let step = body.take(&endpoint[at..], out);
            let step = step.map_err(|_| Broken::Endpoint("a chunk is framed wrongly".into()))?;
            self.sent.payload_bytes += step.payload as u64;
            self.write(at..at + step.direct).await?;
            at += step.used;
            if body.is_done() {
                return Ok(at == self.buffers.endpoint.len());
            }
            self.buffers.endpoint.clear();
            at = 0;
            match self.read(stream).await? {
                Ok(0) => {
                    let closed = body.close(&mut self.buffers.out);
                    closed.map_err(|_| Broken::Endpoint("the answer is incomplete".into()))?;
                }
                Ok(_) => {}
                Err(failure) => return Err(Broken::Endpoint(format!("{failure:?}"))),
            }
        }
    }

    /// Reads from the endpoint, unless the client goes away.
    async fn read(&mut self, stream: &mut TcpStream) -> Result<Result<usize, Failure>, Broken> {
        let (client, buffer) = (&*self.client, &mut self.buffers.endpoint);
        let mut stream = Pin::new(stream);
        let reading = poll_fn(|cx| {
            if let Poll::Ready(read) = poll_read_buf(stream.as_mut(), cx, buffer) {
                return Poll::Ready(Ok(read));
            }
            client.poll_gone(cx).map(Err)
        });
        match timeout(self.route.settings.upstream.read_timeout, reading).await {
            Ok(Ok(Ok(count))) => Ok(Ok(count)),
            Ok(Ok(Err(_))) => Ok(Err(Failure::Error)),
            Ok(Err(gone)) => Err(Broken::Client(gone)),
            Err(_) => Ok(Err(Failure::Timeout)),
        }
    }

    /// Writes what is to be written and a part of what was read.
    async fn write(&mut self, direct: std::ops::Range<usize>) -> Result<(), Broken> {
        let Buffers { endpoint, out, .. } = &mut *self.buffers;
        let pieces = [out.as_slice(), &endpoint[direct]];
        if pieces.iter().all(|piece| piece.is_empty()) {
            return Ok(());
        }
        let count = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        write_all(self.client, pieces).await.map_err(Broken::Client)?;
        self.sent.bytes += count;
        out.clear();
        Ok(())
    }

    fn failed(&self, failure: Failure) -> Broken {
        match self.sent.status {
            None => Broken::Early(Some(failure)),
            Some(_) => Broken::Endpoint(format!("{failure:?} after an informational answer")),
        }
    }
}

async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream, Broken> {
    let stream = early(timeout(limit, TcpStream::connect(address)).await)?;
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!("setting TCP_NODELAY: {error}");
    }
    Ok(stream)
}

fn early<T>(done: Result<io::Result<T>, tokio::time::error::Elapsed>) -> Result<T, Broken> {
    match done {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
            Err(Broken::Early(Some(Failure::Timeout)))
        }
        Ok(Err(_)) => Err(Broken::Early(Some(Failure::Error))),
        Err(_) => Err(Broken::Early(Some(Failure::Timeout))),
    }
}

/// Writes everything; the client has `SEND_TIMEOUT` to take the next piece.
async fn write_all(stream: &mut ClientStream, pieces: [&[u8]; 2]) -> io::Result<()> {
    let [mut first, mut second] = pieces;
    while !first.is_empty() || !second.is_empty() {
        let slices = [IoSlice::new(first), IoSlice::new(second)];
        let writing = poll_fn(|cx| Pin::new(&mut *stream).poll_write_vectored(cx, &slices));
        let count = timeout(SEND_TIMEOUT, writing).await??;
        if count == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let of_first = count.min(first.len());
        first = &first[of_first..];
        second = &second[count - of_first..];
    }
    timeout(SEND_TIMEOUT, stream.flush()).await?
}
