//! Endpoints that remember the requests they were sent, byte for byte.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// A request as an endpoint saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub service: String,
    pub method: String,
    pub target: String,
    pub version: String,
    /// In the order they came, names as they were written.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }
}

/// One endpoint for each of a few services.
pub struct Recorder {
    pub addresses: BTreeMap<&'static str, SocketAddr>,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Recorder {
    pub fn start(services: &[&'static str]) -> Recorder {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut addresses = BTreeMap::new();
        for service in services {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            addresses.insert(*service, listener.local_addr().unwrap());
            let (service, seen) = (*service, seen.clone());
            thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let seen = seen.clone();
                    thread::spawn(move || serve(stream, service, &seen));
                }
            });
        }
        Recorder { addresses, seen }
    }

    /// What came since the last call.
    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

fn serve(stream: TcpStream, service: &str, seen: &Mutex<Vec<Seen>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(request) = read(&mut input, service) {
        let answer = answer(&request);
        seen.lock().unwrap().push(request);
        if out.write_all(&answer).is_err() {
            return;
        }
    }
}

fn read(input: &mut impl BufRead, service: &str) -> Option<Seen> {
    let mut line = || {
        let mut bytes = Vec::new();
        input.read_until(b'\n', &mut bytes).ok().filter(|count| *count > 0)?;
        let text: String = bytes.iter().map(|byte| char::from(*byte)).collect();
        Some(text.trim_end_matches(['\r', '\n']).to_string())
    };
    let start = line()?;
    let mut headers = Vec::new();
    loop {
        let header = line()?;
        if header.is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap_or((&header, ""));
        headers.push((name.to_string(), value.trim().to_string()));
    }
    let mut words = start.splitn(3, ' ').map(String::from);
    let mut seen = Seen {
        service: service.into(),
        method: words.next()?,
        target: words.next()?,
        version: words.next()?,
        headers,
        body: Vec::new(),
    };
    if let Some(length) = seen.header("content-length") {
        let length: u64 = length.parse().ok()?;
        let read = input.take(length).read_to_end(&mut seen.body).ok()?;
        // Cut off: no request.
        (read as u64 == length).then_some(())?;
    } else if seen.header("transfer-encoding").is_some() {
        read_chunks(input, &mut seen.body)?;
    }
    Some(seen)
}

fn read_chunks(input: &mut impl BufRead, body: &mut Vec<u8>) -> Option<()> {
    loop {
        let mut line = String::new();
        input.read_line(&mut line).ok().filter(|count| *count > 0)?;
        let size = u64::from_str_radix(line.trim(), 16).ok()?;
        if size == 0 {
            // Trailers, if any, end with an empty line.
            loop {
                line.clear();
                input.read_line(&mut line).ok().filter(|count| *count > 0)?;
                if line == "\r\n" {
                    return Some(());
                }
            }
        }
        (&mut *input).take(size).read_to_end(body).ok()?;
        input.read_exact(&mut [0; 2]).ok()?;
    }
}

/// 200 with the service's name, or what the client asked for in `X-Answer`.
fn answer(request: &Seen) -> Vec<u8> {
    let (status, more) = match request.header("x-answer") {
        Some("302") => ("302 Found", "Location: http://inner.example/next?a=b\r\n"),
        Some("304") => ("304 Not Modified", "ETag: \"v1\"\r\n"),
        Some("404") => ("404 Not Found", "X-Reason: none\r\n"),
        Some("500") => ("500 Internal Server Error", ""),
        Some("cookies") => {
            ("200 OK", "Set-Cookie: a=1; Path=/inner; Domain=inner.example\r\nSet-Cookie: b=2\r\n")
        }
        Some("204") => ("204 No Content", ""),
        _ => ("200 OK", "Content-Type: text/plain\r\n"),
    };
    let body = format!("{}\n", request.service);
    let framing = match status {
        "204 No Content" | "304 Not Modified" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    let mut out = format!("HTTP/1.1 {status}\r\nServer: recorder\r\n{more}{framing}\r\n");
    if request.method != "HEAD" && !framing.is_empty() {
        out.push_str(&body);
    }
    out.into_bytes()
}
