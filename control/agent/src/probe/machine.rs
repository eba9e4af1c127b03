//! When to probe and what the results add up to. Pure: the outcome of a probe goes in, a verdict and
//! the time of the next probe come out.

use std::time::Duration;

use k8s_openapi::api::core::v1::Probe;

/// Which of a container's probes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Startup,
    Readiness,
    Liveness,
}

impl Kind {
    /// As it begins a message of an event.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// The timing of a probe, with the defaults of the API filled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timing {
    pub(crate) initial_delay: Duration,
    pub(crate) period: Duration,
    pub(crate) timeout: Duration,
    success_threshold: u32,
    failure_threshold: u32,
}

impl Timing {
    pub(crate) fn of(probe: &Probe) -> Self {
        let count = |value: Option<i32>, default: u32| {
            value.and_then(|value| u32::try_from(value).ok()).filter(|v| *v > 0).unwrap_or(default)
        };
        let seconds = |value, default| Duration::from_secs(count(value, default).into());
        Self {
            initial_delay: seconds(probe.initial_delay_seconds, 0),
            period: seconds(probe.period_seconds, 10),
            timeout: seconds(probe.timeout_seconds, 1),
            success_threshold: count(probe.success_threshold, 1),
            failure_threshold: count(probe.failure_threshold, 3),
        }
    }
}

/// The first pause of a container that is warming up; it doubles until it is the period.
const WARM_UP_PAUSE: Duration = Duration::from_millis(50);

/// Where the results of one probe of one container stand.
///
/// A readiness or startup probe without an initial delay usually finds a container that has not
/// opened its port yet. Waiting a whole period after that would make every pod slow, so until its
/// first success, within its first period, it is repeated after a short and doubling pause
/// (*warm-up*). Failures in the warm-up do not count and are not reported; from then on the
/// behaviour is upstream's.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    kind: Kind,
    timing: Timing,
    verdict: Option<bool>,
    last: Option<bool>,
    /// Results in a row that equal the last.
    run: u32,
    warm_up: Option<Duration>,
}

/// What a result led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// The new verdict, where it changed.
    pub(crate) changed: Option<bool>,
    /// The failure should be reported.
    pub(crate) report: bool,
    /// The pause before the next probe.
    pub(crate) pause: Duration,
}

impl Machine {
    /// `verdict`: what was known of this container before, for one the agent found running.
    pub(crate) fn new(kind: Kind, timing: Timing, verdict: Option<bool>) -> Self {
        let warm_up = kind != Kind::Liveness && timing.initial_delay.is_zero() && verdict.is_none();
        Self {
            kind,
            timing,
            verdict,
            last: None,
            run: 0,
            warm_up: warm_up.then_some(WARM_UP_PAUSE),
        }
    }

    /// Takes the result of a probe. `age`: how long the container has been running.
    pub(crate) fn step(&mut self, success: bool, age: Duration) -> Step {
        if let Some(pause) =
            self.warm_up.filter(|pause| !success && age + *pause < self.timing.period)
        {
            self.warm_up = Some(pause * 2);
            return Step { changed: None, report: false, pause };
        }
        self.warm_up = None;
        self.run = if self.last == Some(success) { self.run.saturating_add(1) } else { 1 };
        self.last = Some(success);
        let threshold =
            if success { self.timing.success_threshold } else { self.timing.failure_threshold };
        // A container counts as not ready before its first verdict, whatever the threshold is.
        let first_failure = !success && self.kind == Kind::Readiness && self.verdict.is_none();
        let reached = self.run >= threshold || first_failure;
        let changed = (reached && self.verdict != Some(success)).then_some(success);
        self.verdict = changed.or(self.verdict);
        Step { changed, report: !success, pause: self.timing.period }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(success: i32, failure: i32) -> Timing {
        Timing::of(&Probe {
            success_threshold: Some(success),
            failure_threshold: Some(failure),
            ..Probe::default()
        })
    }

    fn verdicts(mut machine: Machine, results: &str) -> String {
        let late = Duration::from_secs(3600);
        results
            .chars()
            .map(|result| match machine.step(result == '+', late).changed {
                Some(true) => 'Y',
                Some(false) => 'N',
                None => '.',
            })
            .collect()
    }

    #[test]
    fn thresholds() {
        for (kind, success, failure, before, results, expected) in [
            (Kind::Readiness, 1, 3, None, "-+---+", "NY..NY"),
            (Kind::Readiness, 2, 1, None, "+-++-", ".N.YN"),
            (Kind::Readiness, 1, 3, Some(true), "--+---", ".....N"),
            (Kind::Liveness, 1, 3, None, "+--+---", "Y.....N"),
            (Kind::Liveness, 1, 1, None, "-", "N"),
            (Kind::Startup, 1, 3, None, "--+", "..Y"),
            (Kind::Startup, 1, 3, None, "---", "..N"),
        ] {
            let machine = Machine::new(kind, timing(success, failure), before);
            assert_eq!(verdicts(machine, results), expected, "{kind:?} {results}");
        }
    }

    #[test]
    fn warm_up_repeats_soon_and_counts_nothing() {
        let mut machine = Machine::new(Kind::Startup, timing(1, 1), None);
        let mut age = Duration::ZERO;
        let mut pauses = Vec::new();
        loop {
            let step = machine.step(false, age);
            pauses.push(u64::try_from(step.pause.as_millis()).unwrap());
            if step.changed.is_some() {
                break;
            }
            assert!(!step.report);
            age += step.pause;
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 10_000]);
        let mut machine = Machine::new(Kind::Readiness, timing(1, 1), None);
        assert_eq!(machine.step(true, Duration::ZERO).changed, Some(true));
    }
}
