//! Who answers at an address, and since when: a server that tells every client where its connection
//! ended, and a client that connects over and over and writes down whenever that is another port.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const USAGE: &str = "\
usage: reach serve --ports PORT[,PORT...]
       reach follow --to IP:PORT [--pause-us N]";

/// Longest wait for a connection, and for what it says.
const LIMIT: Duration = Duration::from_millis(500);
/// What a connection says at most: a port.
const ANSWER_LEN_MAX: u64 = 8;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("reach: {message}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let text = |flag: &str| {
        let at = args.iter().position(|arg| arg == flag)?;
        args.get(at + 1)
    };
    match args.first().map(String::as_str) {
        Some("serve") => {
            let ports = text("--ports").ok_or("--ports is missing")?;
            let ports = ports.split(',').map(str::parse).collect::<Result<Vec<u16>, _>>();
            serve(&ports.map_err(|error| format!("--ports: {error}"))?)
                .map_err(|error| format!("serving: {error}"))
        }
        Some("follow") => {
            let target = text("--to").ok_or("--to is missing")?;
            let target = target.parse().map_err(|_| format!("--to: {target:?} is no IP:PORT"))?;
            let pause = text("--pause-us").map_or(Ok(50), |text| text.parse());
            let pause = pause.map_err(|error| format!("--pause-us: {error}"))?;
            follow(target, Duration::from_micros(pause)).map_err(|error| format!("{error}"))
        }
        _ => Err("an action is missing".to_owned()),
    }
}

fn serve(ports: &[u16]) -> io::Result<()> {
    let listeners = ports.iter().map(|port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, *port)));
    let listeners = listeners.collect::<io::Result<Vec<_>>>()?;
    thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(move || {
                for stream in listener.incoming() {
                    // A client that went away is its own loss.
                    let _ended = stream.and_then(answer);
                }
            });
        }
    });
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let port = stream.local_addr()?.port();
    write!(stream, "{port}")
}

/// One line for each change: the time, in nanoseconds since 1970, at which the first connection of
/// its kind was answered, and the port that it ended at; 0: none.
fn follow(target: SocketAddr, pause: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let mut last = None;
    loop {
        let port = ask(target).unwrap_or(0);
        if last.replace(port) != Some(port) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            writeln!(out, "{} {port}", now.as_nanos())?;
            out.flush()?;
        }
        thread::sleep(pause);
    }
}

fn ask(target: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&target, LIMIT)?;
    // Many connections one after the other must not use up the ports.
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = libc::socklen_t::try_from(size_of_val(&linger)).map_err(io::Error::other)?;
    // SAFETY: a socket that is open, and an option of the length given.
    let result = unsafe {
        let value = (&raw const linger).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, len)
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    stream.set_read_timeout(Some(LIMIT))?;
    let mut text = String::new();
    (&mut stream).take(ANSWER_LEN_MAX).read_to_string(&mut text)?;
    text.parse().map_err(io::Error::other)
}
