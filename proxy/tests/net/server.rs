//! Servers: each answers with its own name and the peer it saw, over TCP, UDP and SCTP and both
//! families, at one port.
//!
//! Over TCP the client sends lines: `who`, `take N` and N bytes, `give N`. Over UDP an answer is as
//! long as the datagram it answers. SCTP is spoken by hand, see [`crate::sctp`].

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    runtime,
    sync::oneshot,
};

use crate::{netns, sctp};

/// A server, stopped when dropped: its sockets are closed then.
pub struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    asked: Arc<AtomicU64>,
}

/// The sockets of a server.
struct Sockets {
    tcp: TcpListener,
    udp: UdpSocket,
    sctp: Vec<UdpSocket>,
}

impl Server {
    /// Starts one in a network namespace, at all of its addresses.
    pub fn start(netns: &str, name: &str, port: u16) -> Self {
        Self::start_at(netns, name, SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port))
    }

    /// Starts one at one address, which is what it then answers from.
    pub fn start_at(netns: &str, name: &str, at: SocketAddr) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let (netns, name) = (netns.to_owned(), name.to_owned());
        let asked = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&asked);
        let thread = thread::spawn(move || {
            netns::enter(&netns);
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let sockets = Sockets::open(at);
                ready.send(()).unwrap();
                tokio::select! {
                    () = serve(sockets, &name, at.port(), &count) => {}
                    _ = stopped => {}
                }
            });
        });
        is_ready.recv().expect("the server did not start");
        Self { stop: Some(stop), thread: Some(thread), asked }
    }

    /// How many requests it got.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Sockets {
    fn open(at: SocketAddr) -> Self {
        let tcp = TcpListener::bind(at).unwrap();
        let udp = UdpSocket::bind(at).unwrap();
        let sctp: Vec<UdpSocket> = match at.ip() {
            IpAddr::V6(ip) if ip.is_unspecified() => {
                vec![sctp::socket(Ipv4Addr::UNSPECIFIED.into()), sctp::socket(ip.into())]
            }
            ip => vec![sctp::socket(ip)],
        };
        tcp.set_nonblocking(true).unwrap();
        udp.set_nonblocking(true).unwrap();
        sctp.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        Self { tcp, udp, sctp }
    }
}

async fn serve(sockets: Sockets, name: &str, port: u16, asked: &Arc<AtomicU64>) {
    let tcp = tokio::net::TcpListener::from_std(sockets.tcp).unwrap();
    let udp = tokio::net::UdpSocket::from_std(sockets.udp).unwrap();
    let sctp = sockets.sctp.into_iter().map(|socket| {
        let socket = tokio::net::UdpSocket::from_std(socket).unwrap();
        serve_sctp(socket, name, port, asked)
    });
    tokio::join!(
        serve_tcp(tcp, name, asked),
        serve_udp(udp, name, asked),
        futures::future::join_all(sctp),
    );
}

/// How a server answers.
fn answer(name: &str, peer: SocketAddr) -> String {
    format!("{name} saw {}", SocketAddr::new(peer.ip().to_canonical(), peer.port()))
}

async fn serve_tcp(listener: tokio::net::TcpListener, name: &str, asked: &Arc<AtomicU64>) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else { continue };
        let (name, asked) = (name.to_owned(), Arc::clone(asked));
        tokio::spawn(async move {
            let _ = serve_connection(stream, &answer(&name, peer), &asked).await;
        });
    }
}

async fn serve_connection(
    stream: tokio::net::TcpStream,
    answer: &str,
    asked: &AtomicU64,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        asked.fetch_add(1, Ordering::Relaxed);
        let (verb, len) = line.trim().split_once(' ').unwrap_or((line.trim(), "0"));
        let len = len.parse().unwrap_or(0);
        match verb {
            "who" => stream.write_all(format!("{answer}\n").as_bytes()).await?,
            "give" => stream.write_all(&pattern(len)).await?,
            "take" => {
                let mut taken = vec![0; len];
                stream.read_exact(&mut taken).await?;
                let text = if taken == pattern(len) { "all\n" } else { "corrupt\n" };
                stream.write_all(text.as_bytes()).await?;
            }
            _ => stream.write_all(b"what?\n").await?,
        }
        line.clear();
    }
    Ok(())
}

async fn serve_udp(socket: tokio::net::UdpSocket, name: &str, asked: &AtomicU64) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is one that an earlier answer met.
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
        asked.fetch_add(1, Ordering::Relaxed);
        let whole = buffer[..len] == pattern(len);
        let mut text = if whole { answer(name, peer) } else { "corrupt".to_owned() }.into_bytes();
        text.resize(len.max(text.len()), b'.');
        let _ = socket.send_to(&text, peer).await;
    }
}

async fn serve_sctp(socket: tokio::net::UdpSocket, name: &str, port: u16, asked: &AtomicU64) {
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let Some(packet) = sctp::Packet::parse(&buffer[..len], peer.is_ipv4()) else { continue };
        if packet.to_port != port || packet.chunk != sctp::INIT {
            continue;
        }
        asked.fetch_add(1, Ordering::Relaxed);
        let text = answer(name, SocketAddr::new(peer.ip(), packet.from_port));
        let bytes = sctp::packet(port, packet.from_port, sctp::INIT_ACK, &text);
        let _ = socket.send_to(&bytes, SocketAddr::new(peer.ip(), 0)).await;
    }
}

/// Bytes whose order can be checked.
pub fn pattern(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}
