//! How fast an endpoint answers: an average that forgets within seconds, as ingress-nginx's `ewma`.

use super::Moment;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// After this long, two thirds of what was known do not count any more.
const DECAY_S: f32 = 10.0;

/// The average latency, and when it was last added to.
#[derive(Debug, Default)]
pub struct Latency(AtomicU64);

/// Seconds, and the moment in units of 16 ms, of which 32 bits hold two years.
#[derive(Clone, Copy)]
struct Average {
    seconds: f32,
    at: u32,
}

impl Average {
    fn unpack(bits: u64) -> Average {
        let [a, b, c, d, e, f, g, h] = bits.to_be_bytes();
        let seconds = f32::from_be_bytes([a, b, c, d]);
        Average { seconds, at: u32::from_be_bytes([e, f, g, h]) }
    }

    fn pack(self) -> u64 {
        u64::from(self.seconds.to_bits()) << 32 | u64::from(self.at)
    }

    /// After another measurement; 0 is what an endpoint nobody asks gets nearer to.
    fn with(self, measured_s: f32, now: u32) -> Average {
        let age_s =
            Duration::from_millis(u64::from(now.saturating_sub(self.at)) * 16).as_secs_f32();
        let weight = (-age_s / DECAY_S).exp();
        Average { seconds: self.seconds * weight + measured_s * (1.0 - weight), at: now }
    }
}

fn units(now: Moment) -> u32 {
    u32::try_from(now.0 / 16).unwrap_or(u32::MAX)
}

impl Latency {
    /// Takes a measurement.
    pub fn add(&self, measured: Duration, now: Moment) {
        let next =
            |bits| Some(Average::unpack(bits).with(measured.as_secs_f32(), units(now)).pack());
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// The less the better.
    pub fn score(&self, now: Moment) -> f32 {
        Average::unpack(self.0.load(Ordering::Relaxed)).with(0.0, units(now)).seconds
    }

    /// What a new endpoint begins with: it is taken for an average one.
    pub fn average<'a>(others: impl Iterator<Item = &'a Latency>, now: Moment) -> Latency {
        let (mut sum, mut count) = (0.0, 0.0);
        for other in others {
            sum += Average::unpack(other.0.load(Ordering::Relaxed)).seconds;
            count += 1.0;
        }
        let seconds = if count > 0.0 { sum / count } else { 0.0 };
        Latency(AtomicU64::new(Average { seconds, at: units(now) }.pack()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn close(score: f32, expected: f32) {
        assert!((score - expected).abs() < 0.001, "{score}, not {expected}");
    }

    #[test]
    fn it_decays_over_ten_seconds() {
        let latency = Latency::default();
        latency.add(SECOND, Moment(3_600_000));
        close(latency.score(Moment(3_600_000)), 1.0);
        close(latency.score(Moment(3_610_000)), 0.3679);
        // Half of what is new, where half of what was known is forgotten.
        latency.add(3 * SECOND, Moment(3_606_928));
        close(latency.score(Moment(3_606_928)), 2.0);
    }

    #[test]
    fn a_new_endpoint_is_an_average_one() {
        let (one, two) = (Latency::default(), Latency::default());
        one.add(SECOND, Moment(3_600_000));
        two.add(3 * SECOND, Moment(3_600_000));
        let new = Latency::average([&one, &two].into_iter(), Moment(3_600_000));
        close(new.score(Moment(3_600_000)), 2.0);
        close(Latency::average([].into_iter(), Moment(5)).score(Moment(5)), 0.0);
    }
}
