//! Clients that ask without end, on one connection or on one each, and remember every wrong answer.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a client asks for, and how.
#[derive(Clone, Copy)]
pub struct Habit {
    pub host: &'static str,
    pub path: &'static str,
    /// Length of the body; none for a GET.
    pub post_bytes: Option<usize>,
    /// A connection for each request.
    pub fresh: bool,
    /// How the body of the answer begins.
    pub answer: &'static str,
    /// Between two requests: the load is bounded.
    pub pause: Duration,
}

#[derive(Default)]
pub struct Load {
    stop: AtomicBool,
    done: AtomicUsize,
}

impl Load {
    pub fn client(self: &Arc<Load>, address: SocketAddr, habit: Habit) -> JoinHandle<Vec<String>> {
        let load = self.clone();
        thread::spawn(move || {
            let mut failures = Vec::new();
            let mut kept = None;
            while !load.stop.load(Ordering::Relaxed) {
                let stream = kept.take().unwrap_or_else(|| connect(address));
                match ask(stream, &habit) {
                    Ok(stream) => kept = stream,
                    Err(why) => failures.push(format!("{} {}: {why}", habit.host, habit.path)),
                }
                load.done.fetch_add(1, Ordering::Relaxed);
                thread::sleep(habit.pause);
            }
            failures
        })
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub fn done(&self) -> usize {
        self.done.load(Ordering::Relaxed)
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// One request. Gives the connection back if it can be used again.
fn ask(mut stream: TcpStream, habit: &Habit) -> Result<Option<TcpStream>, String> {
    let close = if habit.fresh { "Connection: close\r\n" } else { "" };
    let (method, length, bytes) = match habit.post_bytes {
        Some(bytes) => ("POST", format!("Content-Length: {bytes}\r\n"), bytes),
        None => ("GET", String::new(), 0),
    };
    let head =
        format!("{method} {} HTTP/1.1\r\nHost: {}\r\n{close}{length}\r\n", habit.path, habit.host);
    let mut request = head.into_bytes();
    request.resize(request.len() + bytes, b'b');
    stream.write_all(&request).map_err(|error| format!("sending: {error}"))?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = stream.read(&mut buffer).map_err(|error| format!("reading: {error}"))?;
        answer.extend_from_slice(&buffer[..count]);
        let text = String::from_utf8_lossy(&answer);
        let complete = text.split_once("\r\n\r\n").filter(|(head, body)| {
            let length = head.split("ontent-Length: ").nth(1).and_then(|rest| rest.lines().next());
            length.and_then(|length| length.parse().ok()) == Some(body.len())
        });
        let Some((head, body)) = complete else {
            if count == 0 {
                return Err(format!("cut off after {text:?}"));
            }
            continue;
        };
        let expected = body.starts_with(habit.answer) && body.ends_with(&format!(" {bytes}"));
        if !head.starts_with("HTTP/1.1 200") || !expected {
            return Err(text.into_owned());
        }
        let ends = habit.fresh || head.to_ascii_lowercase().contains("connection: close");
        return Ok((!ends).then_some(stream));
    }
}
