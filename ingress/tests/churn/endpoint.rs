//! An endpoint that ends as a good server does on SIGTERM: it accepts no more, answers what it has begun,
//! closes what is idle.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// How often an idle connection looks whether it should end.
const IDLE_LOOK: Duration = Duration::from_millis(50);

pub struct Endpoint {
    pub address: SocketAddr,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    ending: AtomicBool,
    requests: AtomicUsize,
}

impl Endpoint {
    /// Answers every request with its name and the length of the body.
    pub fn start(name: &str, address: SocketAddr) -> Endpoint {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::default());
        let (shared, name) = (state.clone(), name.to_string());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.ending.load(Ordering::SeqCst) {
                    return;
                }
                let (shared, name) = (shared.clone(), name.clone());
                thread::spawn(move || drop(serve(stream, &name, &shared)));
            }
        });
        Endpoint { address, state }
    }

    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Begins its end.
    pub fn end(&self) {
        self.state.ending.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(self.address));
    }
}

fn serve(stream: TcpStream, name: &str, state: &State) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    loop {
        input.get_ref().set_read_timeout(Some(IDLE_LOOK))?;
        loop {
            match input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(_) => break,
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) if state.ending.load(Ordering::SeqCst) => return Ok(()),
                Err(_) => {}
            }
        }
        input.get_ref().set_read_timeout(None)?;
        let body_bytes = read(&mut input)?;
        state.requests.fetch_add(1, Ordering::SeqCst);
        let ending = state.ending.load(Ordering::SeqCst);
        let close = if ending { "Connection: close\r\n" } else { "" };
        let answer = format!("{name} {body_bytes}");
        write!(out, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{close}\r\n{answer}", answer.len())?;
        if ending {
            return Ok(());
        }
    }
}

/// Reads a request with its body, if it has one of a known length; gives that.
fn read(input: &mut impl BufRead) -> std::io::Result<u64> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if input.read_line(&mut line)? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        if line == "\r\n" {
            return std::io::copy(&mut input.take(length), &mut std::io::sink());
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
    }
}
