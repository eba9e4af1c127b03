//! WebSockets with tungstenite on both ends.

use super::start;
use crate::tls_client;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

/// Echoes messages until it is told to close.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                stream.set_nodelay(true).unwrap();
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    let echoed = message.is_text() || message.is_binary();
                    if echoed && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

fn converse<S: Read + Write>(mut socket: WebSocket<S>) {
    let large: Vec<u8> = (0..1 << 20).map(|at: u32| at.to_le_bytes()[1]).collect();
    for message in [
        Message::text("hello"),
        Message::binary(large),
        Message::text(""),
        Message::binary(vec![0; 125]),
        Message::binary(vec![1; 70_000]),
    ] {
        socket.send(message.clone()).unwrap();
        assert!(socket.read().unwrap() == message, "echo of {} bytes", message.len());
    }
    socket.send(Message::Ping(b"are you there".to_vec().into())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Pong(b"are you there".to_vec().into()));
    let farewell = CloseFrame { code: CloseCode::Library(4321), reason: "done".into() };
    socket.close(Some(farewell.clone())).unwrap();
    assert_eq!(socket.read().unwrap(), Message::Close(Some(farewell)));
    assert!(socket.read().is_err(), "closed");
}

#[test]
fn websockets_by_http_and_https() {
    let (podium, pair) = start(echo(), "");
    let stream = TcpStream::connect(podium.http).unwrap();
    converse(tungstenite::client("ws://a.example/chat", stream).unwrap().0);
    let stream = tls_client::connect(podium.https, "a.example", &pair.chain, "http/1.1");
    converse(tungstenite::client("wss://a.example/chat", stream).unwrap().0);
}

/// The endpoint says 101 before the end of the empty body is noticed (cloudflare/pingora issue 946).
#[test]
fn quick_upgrades_do_not_break() {
    let (podium, _) = start(echo(), "");
    for at in 0..300 {
        let stream = TcpStream::connect(podium.http).unwrap();
        stream.set_nodelay(true).unwrap();
        let (mut socket, answer) = tungstenite::client("ws://a.example/", stream)
            .unwrap_or_else(|error| panic!("upgrade {at}: {error}"));
        assert_eq!(answer.status(), 101);
        socket.send(Message::text("x")).unwrap();
        assert_eq!(socket.read().unwrap(), Message::text("x"), "upgrade {at}");
    }
}

/// Only WebSockets may leave HTTP: an upgrade to h2c would take requests past every rule.
#[test]
fn other_upgrades_stay_http() {
    let web = crate::backend::Backend::start("web");
    let (podium, _) = start(web.address, "");
    for protocol in ["h2c", "TLS/1.0", "SPDY/3.1", "websocket2"] {
        let answer = podium.send(&format!(
            "GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade, close\r\nUpgrade: {protocol}\r\n\r\n"
        ));
        assert_eq!((answer.status, answer.seen("upgrade").as_str()), (200, ""), "{protocol}");
    }
}
