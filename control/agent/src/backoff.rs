//! Back-off between attempts at the same thing: a container's restart, an image's pull. Upstream's
//! rule: the first repetition is free, then 10 s, doubling to 5 min, forgotten after 10 quiet min.
//! Time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;

const INITIAL: Duration = Duration::from_secs(10);
const MAX: Duration = Duration::from_secs(300);
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

#[derive(Clone, Copy, Debug)]
struct Entry {
    delay: Duration,
    raised_at: Timestamp,
}

/// Delays by key.
#[derive(Debug, Default)]
pub(crate) struct BackOff {
    entries: HashMap<String, Entry>,
}

impl BackOff {
    /// How long the next attempt has to wait, given when the last one ended; `None`: not at all.
    /// With it comes the length of the whole delay, which is what upstream's message names.
    pub(crate) fn remaining(
        &self,
        key: &str,
        last_end: Timestamp,
        now: Timestamp,
    ) -> Option<(Duration, Duration)> {
        let entry = self.entries.get(key)?;
        if since(last_end, entry.raised_at) > FORGOTTEN_AFTER {
            return None;
        }
        let waited = since(now, last_end);
        (waited < entry.delay).then(|| (entry.delay - waited, entry.delay))
    }

    /// Notes an attempt made now, after one that ended at `last_end`.
    pub(crate) fn attempt(&mut self, key: &str, last_end: Timestamp, now: Timestamp) {
        let delay = match self.entries.get(key) {
            Some(entry) if since(last_end, entry.raised_at) <= FORGOTTEN_AFTER => {
                (entry.delay * 2).min(MAX)
            }
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, raised_at: now });
    }

    /// Forgets a key after success.
    pub(crate) fn clear(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

fn since(later: Timestamp, earlier: Timestamp) -> Duration {
    Duration::try_from(later.duration_since(earlier)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn doubles_from_ten_seconds_to_five_minutes_and_forgets() {
        let mut backoff = BackOff::default();
        assert_eq!(backoff.remaining("c", at(0), at(0)), None, "the first restart is free");
        let mut end = 0;
        for delay in [10, 20, 40, 80, 160, 300, 300] {
            backoff.attempt("c", at(end), at(end));
            end += 1;
            let whole = Duration::from_secs(delay);
            assert_eq!(backoff.remaining("c", at(end), at(end)), Some((whole, whole)));
            assert_eq!(
                backoff.remaining("c", at(end), at(end + i64::try_from(delay).unwrap())),
                None
            );
        }
        assert_eq!(backoff.remaining("c", at(end + 700), at(end + 700)), None);
        backoff.attempt("c", at(end + 700), at(end + 700));
        let (_, whole) = backoff.remaining("c", at(end + 701), at(end + 701)).unwrap();
        assert_eq!(whole, INITIAL);
    }
}
