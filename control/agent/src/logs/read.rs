//! Reading a container's log as `kubectl logs` asks for it: from the end, from a time, with
//! timestamps, following. Lines are sent on as they are read.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{line, rotate};

const FOLLOW_PERIOD: Duration = Duration::from_millis(100);
const CHUNK_BYTES: usize = 64 << 10;

/// The options of `kubectl logs`, by their names in the API.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Options {
    pub(crate) follow: bool,
    pub(crate) previous: bool,
    pub(crate) timestamps: bool,
    pub(crate) tail_lines: Option<u64>,
    pub(crate) since_seconds: Option<i64>,
    pub(crate) since_time: Option<Timestamp>,
    pub(crate) limit_bytes: Option<usize>,
}

impl Options {
    fn since(&self, now: Timestamp) -> Option<Timestamp> {
        let seconds = self.since_seconds.map(|seconds| now - SignedDuration::from_secs(seconds));
        self.since_time.or(seconds)
    }
}

/// Turns records into what the client sees, keeping to the options.
struct Filter {
    since: Option<Timestamp>,
    timestamps: bool,
    left_bytes: Option<usize>,
    /// The record before ended in the middle of a line.
    continues: bool,
}

impl Filter {
    fn new(options: &Options, now: Timestamp) -> Self {
        Self {
            since: options.since(now),
            timestamps: options.timestamps,
            left_bytes: options.limit_bytes,
            continues: false,
        }
    }

    fn take(&mut self, record: &[u8], into: &mut Vec<u8>) {
        let Some(line) = line::parse(record) else { return };
        let continues = std::mem::replace(&mut self.continues, line.partial);
        if self.since.is_some_and(|since| line.time < since) {
            return;
        }
        let begin = into.len();
        if self.timestamps && !continues {
            into.extend_from_slice(line.time_text.as_bytes());
            into.push(b' ');
        }
        into.extend_from_slice(line.content);
        if !line.partial {
            into.push(b'\n');
        }
        if let Some(left) = &mut self.left_bytes {
            let added = (into.len() - begin).min(*left);
            into.truncate(begin + added);
            *left -= added;
        }
    }

    fn is_full(&self) -> bool {
        self.left_bytes == Some(0)
    }
}

/// Sends a log to a channel. `is_running` says whether more can come; it ends the following.
pub(crate) async fn send(
    path: PathBuf,
    options: Options,
    is_running: impl Fn() -> bool,
    to: mpsc::Sender<Result<Bytes, io::Error>>,
) {
    if let Err(error) = try_send(&path, &options, is_running, &to).await {
        // A client that has gone away is no problem of ours.
        let _gone = to.send(Err(error)).await;
    }
}

async fn try_send(
    path: &Path,
    options: &Options,
    is_running: impl Fn() -> bool,
    to: &mpsc::Sender<Result<Bytes, io::Error>>,
) -> io::Result<()> {
    let mut filter = Filter::new(options, Timestamp::now());
    let mut file = File::open(path)?;
    let mut tail = Tail::default();
    match options.tail_lines {
        Some(lines) => {
            tail.skip_to(&mut file, lines)?;
        }
        // Rotated files belong to the whole log.
        None => {
            for old in rotate::rotated(path) {
                let mut file = File::open(old)?;
                let mut tail = Tail::default();
                while tail.pass_on(&mut file, &mut filter, to).await? {}
            }
        }
    }
    loop {
        // Asked before reading: what comes after the answer is read once more.
        let more_may_come = options.follow && is_running();
        while tail.pass_on(&mut file, &mut filter, to).await? {}
        if filter.is_full() || to.is_closed() || !more_may_come {
            return Ok(());
        }
        tokio::time::sleep(FOLLOW_PERIOD).await;
        let rotated = fs::metadata(path)
            .is_ok_and(|now| file.metadata().is_ok_and(|open| now.ino() != open.ino()));
        if rotated {
            while tail.pass_on(&mut file, &mut filter, to).await? {}
            file = File::open(path)?;
            tail = Tail::default();
        }
    }
}

/// Reads whole records from a file that may still grow.
#[derive(Default)]
struct Tail {
    /// The beginning of a record whose end has not been written yet.
    rest: Vec<u8>,
}

impl Tail {
    /// Reads a piece and sends what it gives; `false` at the end of the file.
    async fn pass_on(
        &mut self,
        file: &mut File,
        filter: &mut Filter,
        to: &mpsc::Sender<Result<Bytes, io::Error>>,
    ) -> io::Result<bool> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = file.read(&mut chunk)?;
        if count == 0 || filter.is_full() {
            return Ok(false);
        }
        self.rest.extend_from_slice(&chunk[..count]);
        let mut text = Vec::new();
        let mut begin = 0;
        while let Some(length) = self.rest[begin..].iter().position(|byte| *byte == b'\n') {
            filter.take(&self.rest[begin..begin + length], &mut text);
            begin += length + 1;
        }
        self.rest.drain(..begin);
        if text.is_empty() {
            return Ok(true);
        }
        Ok(to.send(Ok(Bytes::from(text))).await.is_ok())
    }

    /// Moves to where the last `lines` lines begin.
    fn skip_to(&mut self, file: &mut File, lines: u64) -> io::Result<()> {
        let length = file.metadata()?.len();
        let mut position = length;
        let mut seen = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        while position > 0 {
            let size = usize::try_from(position.min(CHUNK_BYTES as u64)).unwrap_or(CHUNK_BYTES);
            position -= size as u64;
            file.seek(SeekFrom::Start(position))?;
            file.read_exact(&mut chunk[..size])?;
            for (at, byte) in chunk[..size].iter().enumerate().rev() {
                let end = position + at as u64 + 1;
                // The newline at the very end closes the last line, it begins none.
                if *byte == b'\n' && end < length {
                    seen += 1;
                    if seen == lines {
                        file.seek(SeekFrom::Start(end))?;
                        return Ok(());
                    }
                }
            }
        }
        let from = if lines == 0 { length } else { 0 };
        file.seek(SeekFrom::Start(from)).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "2026-01-01T00:00:01Z stdout F one\n\
                       2026-01-01T00:00:02Z stdout P tw\n\
                       2026-01-01T00:00:02Z stdout F o\n\
                       garbage\n\
                       2026-01-01T00:00:03Z stderr F three\n";

    async fn read(options: Options) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("0.log");
        fs::write(&path, LOG).unwrap();
        fs::write(dir.path().join("0.log.1"), "2026-01-01T00:00:00Z stdout F zero\n").unwrap();
        let (to, mut from) = mpsc::channel(16);
        let task = tokio::spawn(send(path, options, || false, to));
        let mut text = Vec::new();
        while let Some(part) = from.recv().await {
            text.extend_from_slice(&part.unwrap());
        }
        task.await.unwrap();
        String::from_utf8(text).unwrap()
    }

    #[tokio::test]
    async fn options_choose_lines() {
        let all = Options::default();
        let stamped = "2026-01-01T00:00:02Z two\n2026-01-01T00:00:03Z three\n";
        for (options, expected) in [
            (all.clone(), "zero\none\ntwo\nthree\n"),
            (Options { tail_lines: Some(1), ..all.clone() }, "three\n"),
            (Options { tail_lines: Some(0), ..all.clone() }, ""),
            (Options { tail_lines: Some(99), ..all.clone() }, "one\ntwo\nthree\n"),
            (Options { limit_bytes: Some(7), ..all.clone() }, "zero\non"),
            (Options { follow: true, tail_lines: Some(1), ..all.clone() }, "three\n"),
            (
                Options {
                    since_time: Some("2026-01-01T00:00:02Z".parse().unwrap()),
                    timestamps: true,
                    ..all
                },
                stamped,
            ),
        ] {
            assert_eq!(read(options.clone()).await, expected, "{options:?}");
        }
    }
}
