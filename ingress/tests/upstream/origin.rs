//! An endpoint that says what it was asked and answers as the path tells it to, over TCP or TLS.
//!
//! `/status/418?Name=value` answers that status with these headers, `/basic-auth/USER/PASSWORD` wants them,
//! `/cookies/set/NAME/VALUE` sets a cookie, `/bytes/N`, `/xml` and `/html` are contents, `/sleep/MS` takes
//! its time; everything else is 200, or NNN where the endpoint is called `always-NNN`. Each body names the
//! endpoint and shows the head it received.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One endpoint.
pub struct Origin {
    pub name: String,
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    /// Heads and bodies, in order of arrival.
    received: Mutex<Vec<(String, Vec<u8>)>>,
}

impl Origin {
    pub fn start(name: &str) -> Origin {
        Origin::listen(name, "127.0.0.1".parse().unwrap(), None)
    }

    /// Speaks TLS with this configuration.
    pub fn start_tls(name: &str, tls: rustls::ServerConfig) -> Origin {
        Origin::listen(name, "127.0.0.1".parse().unwrap(), Some(Arc::new(tls)))
    }

    pub fn listen(name: &str, address: IpAddr, tls: Option<Arc<rustls::ServerConfig>>) -> Origin {
        let listener = TcpListener::bind((address, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, own) = (state.clone(), name.to_string());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, own, tls) = (shared.clone(), own.clone(), tls.clone());
                thread::spawn(move || drop(serve(stream, tls, &own, &shared)));
            }
        });
        Origin { name: name.into(), address, state }
    }

    /// What was received so far: heads as they came, and bodies.
    pub fn received(&self) -> Vec<(String, Vec<u8>)> {
        self.state.received.lock().unwrap().clone()
    }

    /// From now on the port refuses, and kept connections end after their next request.
    pub fn stop(&self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(
    stream: TcpStream,
    tls: Option<Arc<rustls::ServerConfig>>,
    name: &str,
    state: &State,
) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    match tls {
        Some(config) => {
            let session = rustls::ServerConnection::new(config).map_err(std::io::Error::other)?;
            converse(rustls::StreamOwned::new(session, stream), name, state)
        }
        None => converse(stream, name, state),
    }
}

fn converse(stream: impl Read + Write, name: &str, state: &State) -> std::io::Result<()> {
    let mut input = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let body = read_body(&mut input, &head.to_ascii_lowercase())?;
        state.received.lock().unwrap().push((head.clone(), body.clone()));
        if state.stopped.load(Ordering::SeqCst) {
            return Ok(());
        }
        let text = answer(name, &head, body.len());
        input.get_mut().write_all(&text)?;
        input.get_mut().flush()?;
    }
}

/// A whole response.
fn answer(name: &str, head: &str, body_bytes: usize) -> Vec<u8> {
    let mut words = head.split(' ');
    let method = words.next().unwrap_or_default();
    let target = words.next().unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    let mut status = name.strip_prefix("always-").and_then(|code| code.parse().ok()).unwrap_or(200);
    let mut headers = String::from("Server: origin\r\n");
    let mut content = None;
    let mut kind = "text/plain";
    match *parts.as_slice() {
        ["status", code] => {
            status = code.parse().unwrap_or(500);
            for (key, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
                write!(headers, "{key}: {}\r\n", decoded(value)).unwrap();
            }
        }
        ["basic-auth", user, password] => {
            let wanted = crate::client::basic(user, password);
            let sent = header(head, "authorization").unwrap_or_default();
            status = if sent == wanted { 200 } else { 401 };
        }
        ["cookies", "set", key, value] => {
            write!(headers, "Set-Cookie: {key}={value}\r\n").unwrap();
        }
        ["bytes", count] => {
            kind = "application/octet-stream";
            content = Some("x".repeat(count.parse().unwrap_or(0)));
        }
        ["xml"] => {
            kind = "application/xml";
            content = Some(format!("<a>{}</a>", "b".repeat(600)));
        }
        ["html"] => {
            kind = "text/html";
            content = Some(format!("<p>{}</p>", "b".repeat(600)));
        }
        ["sleep", ms] => thread::sleep(Duration::from_millis(ms.parse().unwrap_or(0))),
        _ => {}
    }
    let content = content.unwrap_or_else(|| {
        format!("backend: {name}\nbody-bytes: {body_bytes}\n{}", head.replace("\r\n", "\n"))
    });
    let shown = if method == "HEAD" { "" } else { &content };
    format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: {kind}\r\n{headers}Content-Length: {}\r\n\r\n{shown}",
        content.len()
    )
    .into_bytes()
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Percent-decoded, plus signs kept.
fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = (first == b'%')
            .then(|| after.get(..2))
            .flatten()
            .and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn read_body(input: &mut impl BufRead, head: &str) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if let Some(length) = header(head, "content-length") {
        input.take(length.trim().parse().unwrap_or(0)).read_to_end(&mut body)?;
    } else if head.contains("\r\ntransfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk)?;
            body.extend_from_slice(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    }
    Ok(body)
}
