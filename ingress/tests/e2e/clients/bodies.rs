//! Large bodies in both directions: whole, and never gathered in memory.

use super::start;
use crate::harness::{curl, wait_until};
use crate::recorder::Recorder;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread;
use std::time::Duration;

const LARGE: usize = 32 << 20;
const UNLIMITED: &str = r#""nginx.ingress.kubernetes.io/proxy-body-size": "0""#;

/// Bytes that tell their place: any shift, loss or repetition of a part shows.
fn pattern(length: usize) -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| {
        (0..LARGE).map(|at| (at ^ (at >> 8) ^ (at >> 16)).to_le_bytes()[0]).collect()
    });
    &BYTES[..length]
}

/// Answers `GET /N` with N bytes, `/chunked/N` with the same in chunks; counts what it could send.
fn server(sent: Arc<AtomicUsize>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let sent = sent.clone();
            thread::spawn(move || drop(serve(&stream, &sent)));
        }
    });
    address
}

fn serve(stream: &TcpStream, sent: &AtomicUsize) -> std::io::Result<()> {
    let (mut input, mut out) = (BufReader::new(stream), stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if input.read_line(&mut head)? == 0 {
            return Ok(());
        }
    }
    let target = head.split(' ').nth(1).unwrap();
    let chunked = target.starts_with("/chunked/");
    let body = pattern(target.rsplit('/').next().unwrap().parse().unwrap());
    let framing = match chunked {
        true => "Transfer-Encoding: chunked".to_string(),
        false => format!("Content-Length: {}", body.len()),
    };
    write!(out, "HTTP/1.1 200 OK\r\nConnection: close\r\n{framing}\r\n\r\n")?;
    for part in body.chunks(1 << 16) {
        if chunked {
            write!(out, "{:x}\r\n", part.len())?;
        }
        out.write_all(part)?;
        if chunked {
            out.write_all(b"\r\n")?;
        }
        sent.fetch_add(part.len(), Ordering::SeqCst);
    }
    if chunked { out.write_all(b"0\r\n\r\n") } else { Ok(()) }
}

/// The most memory a process has had, in KiB.
fn memory_kib_max(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
fn large_downloads_and_uploads_arrive_whole_and_pass_through() {
    let folder = tempfile::tempdir().unwrap();
    let (file, got) = (folder.path().join("sent"), folder.path().join("got"));
    std::fs::write(&file, pattern(LARGE)).unwrap();
    let recorder = Recorder::start(&["web"]);
    let (uploads, _) = start(recorder.addresses["web"], UNLIMITED);
    let (downloads, _) = start(server(Arc::default()), "");
    let before = [uploads.process.id(), downloads.process.id()].map(memory_kib_max);
    let (file, got_name) = (file.to_str().unwrap(), got.to_str().unwrap());
    for (scheme, version) in [("http", "--http1.1"), ("https", "--http1.1"), ("https", "--http2")] {
        for chunked in [false, true] {
            let fetch = |podium: &crate::harness::Ingress, path: &str, more: &[&str]| {
                let address = if scheme == "http" { podium.http } else { podium.https };
                let connect = format!("a.example:{}:{}", address.port(), address.ip());
                let url = format!("{scheme}://a.example:{}{path}", address.port());
                let all = ["-k", version, "--resolve", &connect, "-m", "60", &url];
                let (text, fine) = curl(&[&all[..], more].concat());
                assert!(fine, "{scheme} {version} {path}: {text}");
            };
            let path = if chunked { format!("/chunked/{LARGE}") } else { format!("/{LARGE}") };
            fetch(&downloads, &path, &["-o", got_name]);
            assert!(std::fs::read(&got).unwrap() == pattern(LARGE), "{scheme} {version} {path}");
            let framing: &[&str] =
                if chunked { &["-H", "Transfer-Encoding: chunked"] } else { &[] };
            // HTTP/2 has no chunks: there the length is left out.
            let framing =
                if version == "--http2" && chunked { &["-H", "Content-Length:"] } else { framing };
            fetch(&uploads, "/up", &[&["-T", file][..], framing].concat());
            let seen = recorder.take();
            assert!(
                seen.len() == 1 && seen[0].body == pattern(LARGE),
                "{scheme} {version} {chunked}"
            );
        }
    }
    for (podium, before) in [&uploads, &downloads].into_iter().zip(before) {
        let grown = memory_kib_max(podium.process.id()) - before;
        assert!(grown < 32 << 10, "{grown} KiB more for {} KiB bodies", LARGE >> 10);
    }
}

#[test]
fn a_client_that_does_not_read_makes_the_endpoint_wait() {
    let sent = Arc::new(AtomicUsize::new(0));
    let (podium, _) = start(server(sent.clone()), "");
    let mut client = TcpStream::connect(podium.http).unwrap();
    write!(client, "GET /{LARGE} HTTP/1.1\r\nHost: a.example\r\n\r\n").unwrap();
    let mut before = 0;
    wait_until("the endpoint gets rid of no more", || {
        thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut before, sent.load(Ordering::SeqCst)) == sent.load(Ordering::SeqCst)
            && before > 0
    });
    assert!(before < LARGE / 2, "{before} bytes taken from the endpoint for nobody");
    assert_eq!(
        podium.send("GET /5 HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n").status,
        200
    );
}
