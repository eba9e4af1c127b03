//! Lines to standard output, by a thread of its own that requests do not wake for each line.
//!
//! Threads that serve append to buffers of their own. The writer collects them many times a second while
//! there is something, and sleeps when there is nothing; only the first line after a pause wakes it.

use super::line::Clock;
use crate::metrics::traffic::TRAFFIC;
use std::cell::Cell;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// Buffers; more threads than these share some.
const BUFFERS: usize = 16;
/// What a buffer holds while nobody reads; beyond that lines are dropped, requests never wait.
const BUFFER_BYTES_MAX: usize = 1 << 20;
/// How often lines are collected.
const INTERVAL: Duration = Duration::from_millis(10);
/// After this many looks at nothing the writer sleeps.
const IDLE_LOOKS: u32 = 20;

#[derive(Debug, Default)]
pub struct Buffer {
    pub lines: Vec<u8>,
    pub clock: Clock,
}

/// What serving threads and the writer share.
#[derive(Debug, Default)]
pub struct Shared {
    buffers: [Mutex<Buffer>; BUFFERS],
    asleep: AtomicBool,
    writing: AtomicBool,
}

/// The sending end.
#[derive(Clone, Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    thread: Thread,
}

impl Writer {
    /// Starts the thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Writer> {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let handle =
            thread::Builder::new().name("access-log".into()).spawn(move || run(&own, out))?;
        Ok(Writer { shared, thread: handle.thread().clone() })
    }

    /// Appends a line.
    pub fn append(&self, line: impl FnOnce(&mut Buffer)) {
        {
            let mut buffer = lock(&self.shared.buffers[own_buffer()]);
            if buffer.lines.len() >= BUFFER_BYTES_MAX {
                return TRAFFIC.log_lines_dropped.add(1);
            }
            line(&mut buffer);
        }
        if self.shared.asleep.load(Ordering::SeqCst)
            && self.shared.asleep.swap(false, Ordering::SeqCst)
        {
            self.thread.unpark();
        }
    }

    /// Waits until everything so far is written, or `limit` has passed.
    pub fn flush(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        let pending = |shared: &Shared| {
            shared.writing.load(Ordering::SeqCst)
                || shared.buffers.iter().any(|buffer| !lock(buffer).lines.is_empty())
        };
        while pending(&self.shared) && Instant::now() < deadline {
            self.thread.unpark();
            thread::sleep(Duration::from_millis(1));
        }
    }
}

fn lock(buffer: &Mutex<Buffer>) -> std::sync::MutexGuard<'_, Buffer> {
    buffer.lock().unwrap_or_else(PoisonError::into_inner)
}

fn own_buffer() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static OWN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    OWN.with(|own| {
        own.get().unwrap_or_else(|| {
            let next = NEXT.fetch_add(1, Ordering::Relaxed) % BUFFERS;
            own.set(Some(next));
            next
        })
    })
}

fn run(shared: &Shared, mut out: impl Write) {
    let mut taken = Vec::new();
    let mut idle = 0;
    loop {
        let mut any = false;
        for buffer in &shared.buffers {
            {
                let mut buffer = lock(buffer);
                shared.writing.store(true, Ordering::SeqCst);
                std::mem::swap(&mut buffer.lines, &mut taken);
            }
            if !taken.is_empty() {
                any = true;
                // Nobody reads standard output any more: that must not stop requests.
                if out.write_all(&taken).and_then(|()| out.flush()).is_err() {
                    TRAFFIC.log_lines_dropped.add(1);
                }
                taken.clear();
            }
            shared.writing.store(false, Ordering::SeqCst);
        }
        idle = if any { 0 } else { idle + 1 };
        if idle < IDLE_LOOKS {
            thread::park_timeout(INTERVAL);
            continue;
        }
        shared.asleep.store(true, Ordering::SeqCst);
        // A line may have come between the last look and falling asleep.
        if shared.buffers.iter().all(|buffer| lock(buffer).lines.is_empty()) {
            thread::park();
        }
        shared.asleep.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    /// A reader that takes a write only when it is let.
    struct Slow(mpsc::Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn every_line_of_every_thread_arrives_whole() {
        let (let_it, letting) = mpsc::channel();
        drop(let_it);
        let written = Arc::new(Mutex::new(Vec::new()));
        let writer = Writer::start(Slow(letting, written.clone())).unwrap();
        thread::scope(|scope| {
            for thread in 0..20 {
                let writer = &writer;
                scope.spawn(move || {
                    for line in 0..500 {
                        let text = format!("{thread} {line}\n");
                        writer.append(|buffer| buffer.lines.extend_from_slice(text.as_bytes()));
                        if line == 250 {
                            // Long enough for the writer to fall asleep.
                            thread::sleep(INTERVAL * (IDLE_LOOKS + 10));
                        }
                    }
                });
            }
        });
        writer.flush(Duration::from_secs(10));
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        lines.sort_unstable();
        lines.dedup();
        assert_eq!(lines.len(), 20 * 500);
    }

    #[test]
    fn what_nobody_reads_is_dropped_and_counted() {
        let (let_it, letting) = mpsc::channel();
        let writer = Writer::start(Slow(letting, Arc::default())).unwrap();
        let before = TRAFFIC.log_lines_dropped.get();
        let line = [b'x'; 1024];
        for _ in 0..4 * BUFFER_BYTES_MAX / line.len() {
            writer.append(|buffer| buffer.lines.extend_from_slice(&line));
        }
        assert!(TRAFFIC.log_lines_dropped.get() > before);
        drop(let_it);
        writer.flush(Duration::from_secs(10));
    }
}
