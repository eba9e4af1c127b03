//! Connections to an endpoint that wait for the next request of the fast path. They go with the endpoint.

use super::Moment;
use crate::snapshot::Snapshot;
use arc_swap::ArcSwap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;

/// How often connections are looked at that nobody asked for.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// Idle connections of one endpoint, the one used last at the end.
#[derive(Debug, Default)]
pub struct Kept(Mutex<Vec<Idle>>);

#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Moment,
    _seat: Seat,
}

/// How many idle connections there may be to all endpoints together.
#[derive(Clone, Debug)]
pub struct Seats {
    free: Arc<AtomicUsize>,
}

#[derive(Debug)]
struct Seat(Seats);

impl Seats {
    /// So many.
    pub fn new(count: usize) -> Seats {
        Seats { free: Arc::new(AtomicUsize::new(count)) }
    }

    fn take(&self) -> Option<Seat> {
        let one_less = |free: usize| free.checked_sub(1);
        let (relaxed, free) = (Ordering::Relaxed, &self.free);
        free.fetch_update(relaxed, relaxed, one_less).ok().map(|_| Seat(self.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::Relaxed);
    }
}

impl Idle {
    /// The endpoint has neither closed it nor said anything nobody asked for. Costs no system call while
    /// the connection is quiet: its readiness is known.
    fn is_quiet(&self) -> bool {
        let read = self.stream.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl Kept {
    fn all(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection that can be used, if there is one.
    pub fn take(&self, now: Moment, idle_timeout: Duration) -> Option<TcpStream> {
        let mut all = self.all();
        while let Some(idle) = all.pop() {
            if idle.since.plus(idle_timeout) > now && idle.is_quiet() {
                return Some(idle.stream);
            }
        }
        None
    }

    /// Keeps a connection whose last answer is complete, while there is a seat for it.
    pub fn keep(&self, stream: TcpStream, since: Moment, seats: &Seats) {
        if let Some(seat) = seats.take() {
            self.all().push(Idle { stream, since, _seat: seat });
        }
    }

    fn close_old(&self, now: Moment, idle_timeout: Duration) {
        self.all().retain(|idle| idle.since.plus(idle_timeout) > now && idle.is_quiet());
    }
}

/// Closes connections that were idle for too long, or that their endpoints closed; forever.
pub async fn keep_short(snapshots: Arc<ArcSwap<Snapshot>>) {
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let snapshot = snapshots.load_full();
        let idle_timeout = snapshot.options.endpoint_connections.idle_timeout;
        let now = Moment::now();
        for backend in snapshot.backends.values() {
            for endpoint in backend.endpoints().iter() {
                endpoint.kept.close_old(now, idle_timeout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use tokio::net::TcpListener;

    const IDLE: Duration = Duration::from_secs(60);

    async fn connected() -> (TcpStream, std::net::TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (ours, listener.accept().await.unwrap().0.into_std().unwrap())
    }

    #[tokio::test]
    async fn connections_come_back_while_they_are_quiet() {
        let (kept, seats) = (Kept::default(), Seats::new(2));
        let (now, late) = (Moment(1000), Moment(1000).plus(IDLE));
        let mut theirs = Vec::new();
        for _ in 0..3 {
            let (ours, end) = connected().await;
            kept.keep(ours, now, &seats);
            theirs.push(end);
        }
        assert_eq!(kept.all().len(), 2, "there are two seats");
        assert!(kept.take(late, IDLE).is_none(), "idle for too long");
        let (ours, mut talking) = connected().await;
        kept.keep(ours, now, &seats);
        talking.set_nonblocking(false).unwrap();
        talking.write_all(b"HTTP/1.1 408 Request Timeout\r\n\r\n").unwrap();
        let (ours, closing) = connected().await;
        kept.keep(ours, now, &seats);
        drop(closing);
        // What the ends did has to be seen first.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(kept.take(now, IDLE).is_none());
        assert_eq!(seats.free.load(Ordering::Relaxed), 2);
        let (ours, _open) = connected().await;
        kept.keep(ours, now, &seats);
        assert!(kept.take(now, IDLE).is_some());
    }
}
