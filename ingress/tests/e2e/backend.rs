//! A small HTTP/1.1 server that says what it was asked, echoes WebSockets and can be stopped.
//!
//! The query of a request makes one of several servers misbehave: `answer-NAME=STATUS`, `hangup-NAME=1`
//! (no answer), `garbage-NAME=1` (no HTTP), `sleep-NAME=MS`; `sleep=MS` is for all. `forget=MS` closes the
//! connection that long after the answer without a word. Its headers `X-Answer-Status` and
//! `X-Answer-Header` say what any of them answers, `X-Page-Status` what they answer as default backends.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// One endpoint.
pub struct Backend {
    pub name: String,
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
}

impl Backend {
    pub fn start(name: &str) -> Backend {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, own) = (state.clone(), name.to_string());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                shared.open.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, own) = (shared.clone(), own.clone());
                thread::spawn(move || drop(serve(stream, &own, &shared)));
            }
        });
        Backend { name: name.into(), address, state }
    }

    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Stops like a killed pod: the port refuses, connections break.
    pub fn kill(&self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        while TcpStream::connect(self.address).is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
        for stream in self.state.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

fn serve(stream: TcpStream, name: &str, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if input.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        state.requests.fetch_add(1, Ordering::SeqCst);
        let lower = head.to_ascii_lowercase();
        if lower.contains("upgrade: websocket") {
            out.write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")?;
            let mut byte = [0];
            while input.read(&mut byte)? == 1 {
                out.write_all(&[byte[0].to_ascii_uppercase()])?;
            }
            return Ok(());
        }
        let body = read_body(&mut input, &lower)?;
        for name in ["sleep".to_string(), format!("sleep-{name}")] {
            thread::sleep(Duration::from_millis(asked(&head, &name).unwrap_or(0)));
        }
        if asked(&head, &format!("hangup-{name}")).is_some() {
            return out.shutdown(Shutdown::Both);
        }
        if asked(&head, &format!("garbage-{name}")).is_some() {
            out.write_all(b"This is not HTTP.\r\n\r\n")?;
            return out.shutdown(Shutdown::Both);
        }
        let status = asked(&head, &format!("answer-{name}")).or_else(|| wanted_status(&head));
        let status = status.unwrap_or(200);
        let answer =
            format!("backend: {name}\nbody-bytes: {}\n{}", body, head.replace("\r\n", "\n"));
        write!(
            out,
            "HTTP/1.1 {status} Status\r\nServer: test\r\n{}Content-Length: {}\r\n\r\n{answer}",
            wanted_headers(&head),
            answer.len()
        )?;
        if let Some(ms) = asked(&head, "forget") {
            thread::sleep(Duration::from_millis(ms));
            return out.shutdown(Shutdown::Both);
        }
    }
}

/// The number an argument of the request has.
fn asked(head: &str, name: &str) -> Option<u64> {
    let target = head.split(' ').nth(1)?;
    let (_, query) = target.split_once('?')?;
    let (_, value) =
        query.split('&').find_map(|pair| pair.split_once('=').filter(|(own, _)| *own == name))?;
    value.parse().ok()
}

/// `X-Answer-Status` of the request; `X-Page-Status` where it is asked for the page of an error.
fn wanted_status(head: &str) -> Option<u64> {
    let is_page = !lines(head, "x-code").is_empty();
    lines(head, if is_page { "x-page-status" } else { "x-answer-status" }).first()?.parse().ok()
}

/// What the request says in `X-Answer-Header`.
fn wanted_headers(head: &str) -> String {
    lines(head, "x-answer-header").iter().map(|header| format!("{header}\r\n")).collect()
}

fn lines(head: &str, name: &str) -> Vec<String> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.to_owned()).collect()
}

fn read_body(input: &mut impl BufRead, head: &str) -> std::io::Result<usize> {
    if let Some(length) = head.split("\r\ncontent-length: ").nth(1) {
        let length: usize = length.split("\r\n").next().unwrap_or_default().parse().unwrap_or(0);
        std::io::copy(&mut input.take(length as u64), &mut std::io::sink())?;
        return Ok(length);
    }
    let mut total = 0;
    if head.contains("\r\ntransfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            input.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap_or(0);
            let mut chunk = vec![0; size + 2];
            input.read_exact(&mut chunk)?;
            total += size;
            if size == 0 {
                break;
            }
        }
    }
    Ok(total)
}
