//! Leader election among replicas by a Lease, as client-go does it: which replica writes statuses.
//!
//! This is the decision, without sockets and clocks. A lease is believed to be held for its duration from
//! the moment this replica saw it change, by its own clock: clocks of other replicas do not matter.

pub mod lease;

use std::time::{Duration, Instant};

/// What a Lease says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty for nobody.
    pub holder: String,
    /// How long it is held after a renewal.
    pub duration_s: i32,
    /// When the holder got it, as written.
    pub acquired: String,
    /// When it was renewed last, as written.
    pub renewed: String,
    /// How often it changed hands.
    pub transitions: i32,
}

/// What to write next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There is no Lease: make one.
    Create,
    /// It is ours: say so again.
    Renew,
    /// Nobody holds it any more: take it.
    Take,
    /// Somebody else holds it.
    Wait,
}

/// One replica's view.
#[derive(Debug)]
pub struct Election {
    identity: String,
    ttl: Duration,
    observed: Option<(Record, Instant)>,
    /// When what we wrote last was accepted.
    renewed: Option<Instant>,
}

impl Election {
    /// A candidate.
    pub fn new(identity: String, ttl: Duration) -> Election {
        Election { identity, ttl, observed: None, renewed: None }
    }

    /// How often to look: the fourth part of the lease's duration, as ingress-nginx.
    pub fn interval(&self) -> Duration {
        self.ttl / 4
    }

    /// Decides on what the API says the Lease is.
    pub fn step(&mut self, current: Option<&Record>, now: Instant) -> Step {
        let Some(current) = current else {
            self.observed = None;
            return Step::Create;
        };
        if self.observed.as_ref().is_none_or(|(seen, _)| seen != current) {
            self.observed = Some((current.clone(), now));
        }
        if current.holder == self.identity {
            return Step::Renew;
        }
        // It is somebody else's, whatever we thought before.
        self.renewed = None;
        let seen = self.observed.as_ref().map_or(now, |(_, seen)| *seen);
        let held = Duration::from_secs(u64::try_from(current.duration_s).unwrap_or(0)).max(
            // A holder that released it wrote a short duration; others are given as long as we are.
            if current.holder.is_empty() { Duration::ZERO } else { self.ttl },
        );
        match !current.holder.is_empty() && now < seen + held {
            true => Step::Wait,
            false => Step::Take,
        }
    }

    /// What we wrote was accepted. `asked` is when it was sent.
    pub fn written(&mut self, record: Record, asked: Instant, now: Instant) {
        self.observed = Some((record, now));
        self.renewed = Some(asked);
    }

    /// Whether we lead. After half of the lease's duration without a renewal we do not, well before
    /// anybody else may think so.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed.is_some_and(|renewed| now < renewed + self.ttl / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(30);

    fn record(holder: &str, renewed: &str) -> Record {
        Record {
            holder: holder.into(),
            duration_s: 30,
            acquired: "t0".into(),
            renewed: renewed.into(),
            transitions: 0,
        }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn steps_follow_the_lease_by_our_own_clock() {
        let start = Instant::now();
        for (name, looks) in [
            ("nobody made one", vec![(0, None, Step::Create)]),
            ("ours from before a restart", vec![(0, Some(record("a", "t0")), Step::Renew)]),
            ("released", vec![(0, Some(record("", "t0")), Step::Take)]),
            (
                "another renews it",
                vec![
                    (0, Some(record("b", "t0")), Step::Wait),
                    (20, Some(record("b", "t1")), Step::Wait),
                    (49, Some(record("b", "t1")), Step::Wait),
                    (50, Some(record("b", "t1")), Step::Take),
                ],
            ),
            (
                "times written by a clock that is wrong do not matter",
                vec![
                    (0, Some(record("b", "1970")), Step::Wait),
                    (29, Some(record("b", "1970")), Step::Wait),
                    (30, Some(record("b", "1970")), Step::Take),
                ],
            ),
            (
                "deleted while another held it",
                vec![(0, Some(record("b", "t0")), Step::Wait), (1, None, Step::Create)],
            ),
        ] {
            let mut election = Election::new("a".into(), TTL);
            for (seconds, lease, expected) in looks {
                let step = election.step(lease.as_ref(), at(start, seconds));
                assert_eq!(step, expected, "{name} at {seconds} s");
            }
        }
    }

    #[test]
    fn leadership_ends_before_anybody_else_can_take_it() {
        let start = Instant::now();
        let mut election = Election::new("a".into(), TTL);
        assert!(!election.leads(start));
        assert_eq!(election.step(None, start), Step::Create);
        assert!(!election.leads(start), "not before it is written");
        election.written(record("a", "t0"), start, at(start, 1));
        assert!(election.leads(at(start, 14)));
        assert!(!election.leads(at(start, 15)), "counted from when it was asked for");
        // The other saw the same write at the earliest when it was sent.
        let mut other = Election::new("b".into(), TTL);
        assert_eq!(other.step(Some(&record("a", "t0")), start), Step::Wait);
        assert_eq!(other.step(Some(&record("a", "t0")), at(start, 29)), Step::Wait);
        election.written(record("a", "t1"), at(start, 10), at(start, 10));
        assert!(election.leads(at(start, 20)));
        assert_eq!(election.step(Some(&record("b", "t2")), at(start, 20)), Step::Wait);
        assert!(!election.leads(at(start, 20)), "lost as soon as another is seen");
    }
}
