//! How long a client may keep a connection without asking for anything, however slowly it dribbles.
//!
//! pingora limits each read, which a slow client passes for hours, and limits nothing on HTTP/2. Here
//! the whole wait counts: from the end of one request to the complete header of the next. The same wait
//! tells which connections are idle when the process drains.

use crate::options::ConnectionOptions;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A kept connection without a request for this long ends with a drain; a client that just got an answer
/// may be about to send the next request.
const DRAIN_KEPT: Duration = Duration::from_secs(1);
/// The same for connections that never carried a request: clients open them ahead.
const DRAIN_FRESH: Duration = Duration::from_secs(5);
/// How often busy connections are looked at while draining.
const DRAIN_LOOK: Duration = Duration::from_millis(200);

impl Limits {
    /// What the options say.
    pub fn of(options: &ConnectionOptions) -> Limits {
        Limits { keep_alive: options.keep_alive, header: options.header_timeout }
    }
}

/// Nothing was received since.
const NOTHING: u64 = u64::MAX;

/// What is allowed.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two requests.
    pub keep_alive: Duration,
    /// For the header of a request, from its first byte; for the first request from the connection's
    /// beginning.
    pub header: Duration,
}

/// What a connection does.
#[derive(Debug)]
pub struct Activity {
    opened: Instant,
    /// Since when no request is under way.
    idle_since_ms: AtomicU64,
    /// Since when there is something of the next request.
    received_since_ms: AtomicU64,
    in_flight: AtomicU32,
    requests: AtomicU32,
    multiplexed: AtomicBool,
}

/// What to do about a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// End it.
    Close,
    /// Look again by then.
    Again(Duration),
}

impl Default for Activity {
    fn default() -> Activity {
        Activity {
            opened: Instant::now(),
            idle_since_ms: AtomicU64::new(0),
            received_since_ms: AtomicU64::new(NOTHING),
            in_flight: AtomicU32::new(0),
            requests: AtomicU32::new(0),
            multiplexed: AtomicBool::new(false),
        }
    }
}

impl Activity {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(0)
    }

    /// The connection speaks HTTP/2: what is received is not always part of a request.
    pub fn is_multiplexed(&self) {
        self.multiplexed.store(true, Ordering::Relaxed);
    }

    /// Something came from the client.
    pub fn received(&self) {
        if self.received_since_ms.load(Ordering::Relaxed) == NOTHING
            && self.in_flight.load(Ordering::Relaxed) == 0
        {
            self.received_since_ms.store(self.now_ms(), Ordering::Relaxed);
        }
    }

    /// The header of a request is complete. How many there have been.
    pub fn request_started(&self) -> u32 {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.received_since_ms.store(NOTHING, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A request was answered; the wait for the next one begins.
    pub fn request_ended(&self) {
        self.idle_since_ms.store(self.now_ms(), Ordering::Relaxed);
        self.in_flight.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether the connection waits too long, as of now.
    pub fn look(&self, limits: Limits, draining: bool) -> Look {
        self.look_at(self.now_ms(), limits, draining)
    }

    fn look_at(&self, now_ms: u64, limits: Limits, draining: bool) -> Look {
        let often = if draining { DRAIN_LOOK } else { limits.header };
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Look::Again(often);
        }
        let idle = self.idle_since_ms.load(Ordering::Relaxed);
        let received = self.received_since_ms.load(Ordering::Relaxed);
        let kept = self.requests.load(Ordering::Relaxed) > 0;
        let multiplexed = self.multiplexed.load(Ordering::Relaxed);
        let header_begun = received != NOTHING && !multiplexed;
        let (since, limit) = match (header_begun, draining) {
            (true, _) if kept => (received, limits.header),
            (true, _) => (idle, limits.header),
            (false, true) if kept => (idle, DRAIN_KEPT.min(limits.keep_alive)),
            (false, true) => (idle, DRAIN_FRESH.min(limits.header)),
            (false, false) if kept => (idle, limits.keep_alive),
            (false, false) => (idle, limits.header),
        };
        let waited = Duration::from_millis(now_ms.saturating_sub(since));
        match limit.checked_sub(waited) {
            None | Some(Duration::ZERO) => Look::Close,
            Some(left) => Look::Again(left.min(often)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits =
        Limits { keep_alive: Duration::from_secs(75), header: Duration::from_secs(60) };

    fn seconds(seconds: u64) -> Look {
        Look::Again(Duration::from_secs(seconds))
    }

    fn activity(requests: u32, in_flight: u32, idle_s: u64, received_s: Option<u64>) -> Activity {
        Activity {
            idle_since_ms: AtomicU64::new(idle_s * 1000),
            received_since_ms: AtomicU64::new(received_s.map_or(NOTHING, |s| s * 1000)),
            in_flight: AtomicU32::new(in_flight),
            requests: AtomicU32::new(requests),
            ..Activity::default()
        }
    }

    #[test]
    fn only_waiting_counts() {
        for (what, activity, at_s, expected) in [
            ("a new connection", activity(0, 0, 0, None), 59, seconds(1)),
            ("a new connection, silent", activity(0, 0, 0, None), 60, Look::Close),
            ("a new connection, dribbling", activity(0, 0, 0, Some(59)), 60, Look::Close),
            ("busy", activity(1, 1, 0, None), 10_000, seconds(60)),
            ("kept", activity(1, 0, 100, None), 130, seconds(45)),
            ("kept too long", activity(1, 0, 100, None), 175, Look::Close),
            ("kept, a header begun", activity(1, 0, 100, Some(170)), 175, seconds(55)),
            ("kept, a header overdue", activity(1, 0, 100, Some(170)), 230, Look::Close),
        ] {
            assert_eq!(activity.look_at(at_s * 1000, LIMITS, false), expected, "{what}");
        }
    }

    #[test]
    fn draining_ends_what_is_idle() {
        for (what, activity, at_s, closes) in [
            ("idle for long", activity(1, 0, 100, None), 130, true),
            ("just answered", activity(1, 0, 130, None), 130, false),
            ("opened ahead", activity(0, 0, 0, None), 4, false),
            ("opened ahead long ago", activity(0, 0, 0, None), 6, true),
            ("a header begun", activity(1, 0, 100, Some(129)), 130, false),
            ("busy", activity(1, 1, 0, None), 10_000, false),
        ] {
            let look = activity.look_at(at_s * 1000, LIMITS, true);
            assert_eq!(look == Look::Close, closes, "{what}");
        }
    }

    #[test]
    fn pings_of_http_2_are_no_requests() {
        let idle = activity(1, 0, 100, Some(130));
        idle.is_multiplexed();
        assert_eq!(idle.look_at(175_000, LIMITS, false), Look::Close);
        assert_eq!(idle.look_at(131_000, LIMITS, true), Look::Close);
    }

    #[test]
    fn requests_are_counted() {
        let activity = Activity::default();
        activity.received();
        assert_eq!((activity.request_started(), activity.request_started()), (1, 2));
        activity.request_ended();
        assert_eq!(activity.look_at(1_000_000, LIMITS, true), Look::Again(DRAIN_LOOK));
        activity.request_ended();
        assert_eq!(activity.look_at(1_000_000, LIMITS, true), Look::Close);
    }
}
