//! A limit on the time a client may take to send a request's header, however slowly it dribbles.
//!
//! pingora limits each read, which a slow client passes for hours. Here the whole wait counts: from the
//! end of one request of an HTTP/1 connection to the complete header of the next.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::time::Instant;

tokio::task_local! {
    static CURRENT: Arc<HeaderDeadline>;
}

/// What `waiting_since_ms` holds while a request is served.
const BUSY: u64 = u64::MAX;

/// The state of one connection.
struct HeaderDeadline {
    opened: Instant,
    waiting_since_ms: AtomicU64,
    limit: Duration,
}

/// Runs a connection until it ends or a header is overdue; false in the second case.
pub async fn enforce(limit: Duration, connection: impl Future) -> bool {
    let deadline = Arc::new(HeaderDeadline {
        opened: Instant::now(),
        waiting_since_ms: AtomicU64::new(0),
        limit,
    });
    tokio::select! {
        _ = CURRENT.scope(deadline.clone(), connection) => true,
        () = deadline.overdue() => false,
    }
}

/// The header of a request is complete. Does nothing outside of `enforce`, as on HTTP/2.
pub fn request_started() {
    let _ = CURRENT.try_with(|deadline| deadline.waiting_since_ms.store(BUSY, Ordering::Relaxed));
}

/// A request was answered; the wait for the next one begins.
pub fn request_ended() {
    let _ = CURRENT.try_with(|deadline| {
        let since = u64::try_from(deadline.opened.elapsed().as_millis()).unwrap_or(0);
        deadline.waiting_since_ms.store(since, Ordering::Relaxed);
    });
}

impl HeaderDeadline {
    async fn overdue(&self) {
        loop {
            let since = self.waiting_since_ms.load(Ordering::Relaxed);
            let due = match since {
                BUSY => Instant::now() + self.limit,
                since => self.opened + Duration::from_millis(since) + self.limit,
            };
            tokio::time::sleep_until(due).await;
            if since != BUSY && self.waiting_since_ms.load(Ordering::Relaxed) == since {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_waiting_counts() {
        let limit = Duration::from_secs(1);
        let step = || tokio::time::sleep(Duration::from_millis(600));
        let busy_long = async {
            step().await;
            request_started();
            step().await;
            step().await;
            request_ended();
            step().await;
        };
        let idle_after_a_request = async {
            request_started();
            step().await;
            request_ended();
            std::future::pending::<()>().await;
        };
        let (busy, silent, idle) = futures::join!(
            enforce(limit, busy_long),
            enforce(limit, std::future::pending::<()>()),
            enforce(limit, idle_after_a_request),
        );
        assert_eq!((busy, silent, idle), (true, false, false));
    }
}
