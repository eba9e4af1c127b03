//! Plain HTTP on a kept connection: to the API by way of `kubectl proxy`, and to the agent's metrics.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use podium_tests::netns::Netns;

const LIMIT: Duration = Duration::from_secs(30);

/// A connection to a port of a namespace's loopback address.
#[derive(Debug)]
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    /// Connects.
    pub fn open(netns: &Netns, port: u16) -> anyhow::Result<Connection> {
        let stream = netns.run(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)))?;
        let stream = stream.with_context(|| format!("connect to port {port}"))?;
        stream.set_nodelay(true).context("set up a connection")?;
        stream.set_read_timeout(Some(LIMIT)).context("set up a connection")?;
        Ok(Connection { stream: BufReader::new(stream) })
    }

    /// Sends a request and gives the body of its answer; an answer that is no success is an error.
    pub fn request(&mut self, method: &str, path: &str, body: &str) -> anyhow::Result<String> {
        let what = || format!("{method} {path}");
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), body.as_bytes()].concat();
        self.stream.get_mut().write_all(&request).with_context(what)?;
        let (status, answer) = self.answer().with_context(what)?;
        ensure!((200..300).contains(&status), "{}: {status}: {answer}", what());
        Ok(answer)
    }

    fn answer(&mut self) -> anyhow::Result<(u16, String)> {
        let status = self.line()?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status: u16 = status.context("no status line")?;
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", value)) => length = value.parse().context("a length")?,
                Some(("transfer-encoding", "chunked")) => is_chunked = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        if is_chunked {
            while self.chunk(&mut body)? {}
        } else {
            self.take(length, &mut body)?;
        }
        Ok((status, String::from_utf8(body).context("an answer that is no text")?))
    }

    fn chunk(&mut self, body: &mut Vec<u8>) -> anyhow::Result<bool> {
        let length = u64::from_str_radix(&self.line()?, 16).context("length of a chunk")?;
        self.take(length, body)?;
        self.line()?;
        Ok(length > 0)
    }

    fn take(&mut self, length: u64, body: &mut Vec<u8>) -> anyhow::Result<()> {
        let read = (&mut self.stream).take(length).read_to_end(body).context("read an answer")?;
        ensure!(read as u64 == length, "the answer ends early");
        Ok(())
    }

    fn line(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line).context("read an answer")? == 0 {
            bail!("the connection ended");
        }
        Ok(line.trim_end().to_owned())
    }
}
