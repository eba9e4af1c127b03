//! A server that answers as it is told and remembers what it was asked: an authority for `auth-url`.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What it says to the head of a request: bytes of an answer; nothing means silence.
type Answer = dyn Fn(&str) -> String + Send + Sync;

pub struct Authority {
    pub address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    pub fn start(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> Authority {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (shared, answer): (_, Arc<Answer>) = (asked.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (shared, answer) = (shared.clone(), answer.clone());
                thread::spawn(move || serve(stream, &*answer, &shared));
            }
        });
        Authority { address, asked }
    }

    /// One that always says the same.
    pub fn saying(status: &'static str, headers: &'static str) -> Authority {
        Authority::start(move |_| plain(status, headers))
    }

    /// The heads of all requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    /// The head of the last request.
    pub fn last(&self) -> String {
        self.asked().last().cloned().unwrap_or_default()
    }

    /// A header of the last request; `None` if it was not there.
    pub fn last_header(&self, name: &str) -> Option<String> {
        header(&self.last(), name)
    }
}

/// An answer with a small body, which nobody should see.
pub fn plain(status: &str, headers: &str) -> String {
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 6\r\n\r\nhidden")
}

/// A header of a request.
pub fn header(head: &str, name: &str) -> Option<String> {
    let lines = head.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut found = lines.filter(|(own, _)| own.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().to_string())
}

fn serve(stream: TcpStream, answer: &Answer, asked: &Mutex<Vec<String>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !input.read_line(&mut head).is_ok_and(|count| count > 0) {
                return;
            }
        }
        asked.lock().unwrap().push(head.clone());
        let answer = answer(&head);
        if answer.is_empty() {
            // Silent until the other side gives up.
            drop(input.read_line(&mut head));
            return;
        }
        if out.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
