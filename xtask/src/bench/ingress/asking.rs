//! One request at a time on one connection, by this process: to see when something takes effect.

use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Who asks.
pub struct Asker {
    to: SocketAddr,
    stream: Option<TcpStream>,
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The endpoint's address, from the header it sets.
    pub served_by: Option<String>,
    /// The body.
    pub body: String,
}

impl Asker {
    /// Connects when it asks.
    pub fn new(to: SocketAddr) -> Asker {
        Asker { to, stream: None }
    }

    /// Asks for a path of a host.
    pub fn ask(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = TcpStream::connect(self.to)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(LIMIT))?;
                stream
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bench\r\n\r\n");
        stream.write_all(request.as_bytes())?;
        let mut input = BufReader::new(&stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        let mut body = Vec::new();
        match value_of(&head, "content-length").and_then(|text| text.parse().ok()) {
            Some(length) => read_more(&mut input, length, &mut body)?,
            None => read_chunks(&mut input, &mut body)?,
        }
        if value_of(&head, "connection") != Some("close") {
            self.stream = Some(stream);
        }
        parse(&head, &String::from_utf8_lossy(&body))
    }
}

fn read_more(input: &mut impl Read, length: usize, body: &mut Vec<u8>) -> io::Result<()> {
    let before = body.len();
    body.resize(before + length, 0);
    input.read_exact(&mut body[before..])
}

/// Chunks without trailers, as podium-ingress sends its metrics.
fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
        read_more(input, size, body)?;
        input.read_line(&mut line)?;
        if size == 0 {
            return Ok(());
        }
    }
}

fn parse(head: &str, body: &str) -> io::Result<Answer> {
    let status = head.split(' ').nth(1).and_then(|text| text.parse().ok());
    Ok(Answer {
        status: status.ok_or(ErrorKind::InvalidData)?,
        served_by: value_of(head, "x-served-by").map(str::to_owned),
        body: body.to_owned(),
    })
}

fn value_of<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let found = lines.find(|(found, _)| found.eq_ignore_ascii_case(name));
    found.map(|(_, value)| value.trim())
}
