//! A client that sends exactly what it is told and reads one answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(10);

/// A request, spelled out.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: &'static str,
    pub target: String,
    pub version: &'static str,
    pub host: Option<String>,
    pub headers: Vec<(&'static str, String)>,
    pub body: Body,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Sized(usize),
    Chunked(usize),
}

/// An answer; chunks are put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn get(host: &str, target: &str) -> Request {
        Request {
            method: "GET",
            target: target.into(),
            version: "HTTP/1.1",
            host: Some(host.into()),
            headers: Vec::new(),
            body: Body::None,
        }
    }

    pub fn method(self, method: &'static str) -> Request {
        Request { method, ..self }
    }

    pub fn header(mut self, name: &'static str, value: &str) -> Request {
        self.headers.push((name, value.into()));
        self
    }

    pub fn body(self, body: Body) -> Request {
        Request { body, ..self }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut out = format!("{} {} {}\r\n", self.method, self.target, self.version);
        if let Some(host) = &self.host {
            out.push_str(&format!("Host: {host}\r\n"));
        }
        for (name, value) in &self.headers {
            out.push_str(&format!("{name}: {value}\r\n"));
        }
        match self.body {
            Body::None => out.push_str("\r\n"),
            Body::Sized(count) => {
                out.push_str(&format!("Content-Length: {count}\r\n\r\n{}", "b".repeat(count)));
            }
            Body::Chunked(count) => out.push_str(&format!(
                "Transfer-Encoding: chunked\r\n\r\n{count:x}\r\n{}\r\n0\r\n\r\n",
                "b".repeat(count)
            )),
        }
        out.into_bytes()
    }

    /// Sends it on a connection of its own. `None` where the peer ended it without an answer.
    pub fn send(&self, address: SocketAddr) -> Option<Answer> {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // The peer may answer and close before it has read all of it.
        drop(stream.write_all(&self.bytes()));
        let mut bytes = Vec::new();
        loop {
            if let Some(answer) = parse(&bytes, self.method == "HEAD", false) {
                return Some(answer);
            }
            let mut buffer = [0; 16384];
            match stream.read(&mut buffer) {
                Ok(count @ 1..) => bytes.extend_from_slice(&buffer[..count]),
                Ok(0) => return parse(&bytes, self.method == "HEAD", true),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {
                    return parse(&bytes, self.method == "HEAD", true);
                }
                other => panic!("{other:?} after {} bytes of an answer to {self:?}", bytes.len()),
            }
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// The final answer, if all of it is there.
fn parse(bytes: &[u8], to_head: bool, ended: bool) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head: String = bytes[..end].iter().map(|byte| char::from(*byte)).collect();
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let status: u16 = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    if (100..200).contains(&status) && status != 101 {
        return parse(rest, to_head, ended);
    }
    let split = |line: &str| {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        (name.to_ascii_lowercase(), value.trim().to_string())
    };
    let mut answer = Answer { status, headers: lines.map(split).collect(), body: Vec::new() };
    if to_head || matches!(status, 204 | 304 | 101) {
        return Some(answer);
    }
    if answer.header("transfer-encoding").is_some() {
        answer.body = unchunk(rest)?;
        return Some(answer);
    }
    match answer.header("content-length").map(str::parse) {
        Some(Ok(length)) if rest.len() >= length => answer.body = rest[..length].to_vec(),
        None if ended => answer.body = rest.to_vec(),
        _ => return None,
    }
    Some(answer)
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let chunk = rest.get(end + 2..end + 2 + size)?;
        body.extend_from_slice(chunk);
        rest = rest.get(end + 4 + size..)?;
        if size == 0 {
            return Some(body);
        }
    }
}
