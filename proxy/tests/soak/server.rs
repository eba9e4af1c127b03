//! The endpoints: one thread in a network namespace serves every endpoint address there, and each
//! answers with the word it was asked with and its own address.

use std::{net::IpAddr, sync::mpsc, thread};

use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream, UdpSocket},
    runtime,
    sync::oneshot,
    task::LocalSet,
};

use crate::{netns, plan::POD_PORT};

/// Servers in one namespace, gone when dropped.
#[derive(Debug)]
pub struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Servers {
    pub fn start(netns: &str, addresses: Vec<IpAddr>) -> Self {
        let (stop, stopped) = oneshot::channel();
        let (ready, is_ready) = mpsc::channel();
        let netns = netns.to_owned();
        let thread = thread::spawn(move || {
            netns::enter(&netns);
            let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
            LocalSet::new().block_on(&runtime, async {
                // Datagrams are answered from where they came to, so each address has its socket.
                for ip in addresses {
                    let socket = UdpSocket::bind((ip, POD_PORT)).await.unwrap();
                    tokio::task::spawn_local(datagrams(socket, ip));
                }
                let listener = TcpListener::bind(("::", POD_PORT)).await.unwrap();
                tokio::task::spawn_local(connections(listener));
                ready.send(()).unwrap();
                let _ = stopped.await;
            });
        });
        is_ready.recv().expect("the servers did not start");
        Self { stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn datagrams(socket: UdpSocket, own: IpAddr) {
    let mut buffer = vec![0; 65_536];
    loop {
        // An error is one that an earlier answer met.
        let Ok((len, peer)) = socket.recv_from(&mut buffer).await else { continue };
        let text = String::from_utf8_lossy(&buffer[..len]);
        let mut answer = format!("{} {own} ", text.split(' ').next().unwrap()).into_bytes();
        answer.resize(len.max(answer.len()), b'.');
        let _ = socket.send_to(&answer, peer).await;
    }
}

async fn connections(listener: TcpListener) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::task::spawn_local(connection(stream));
    }
}

async fn connection(stream: TcpStream) -> std::io::Result<()> {
    let own = stream.local_addr()?.ip().to_canonical();
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 0 {
        stream.write_all(format!("{} {own}\n", line.trim()).as_bytes()).await?;
        line.clear();
    }
    Ok(())
}
