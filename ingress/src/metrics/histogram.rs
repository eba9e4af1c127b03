//! A histogram that requests add to without a lock: whole numbers, buckets that are summed up when they
//! are read.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};

/// Prometheus's own buckets for times, 5 ms to 10 s.
pub const TIMES_NS: [u64; 11] = [
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
];
/// ingress-nginx's `--length-buckets`.
pub const LENGTH_BYTES: [u64; 10] = [10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
/// ingress-nginx's `--size-buckets`.
pub const SIZE_BYTES: [u64; 7] = [10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];

/// Counts of values up to each of `N` bounds, and beyond the last.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    buckets: [AtomicU64; N],
    beyond: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Histogram<N> {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; N],
            beyond: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

/// A histogram knows its bounds by their number.
trait Bounds {
    const BOUNDS: &'static [u64];
}

impl Bounds for Histogram<{ TIMES_NS.len() }> {
    const BOUNDS: &'static [u64] = &TIMES_NS;
}

impl Bounds for Histogram<{ LENGTH_BYTES.len() }> {
    const BOUNDS: &'static [u64] = &LENGTH_BYTES;
}

impl Bounds for Histogram<{ SIZE_BYTES.len() }> {
    const BOUNDS: &'static [u64] = &SIZE_BYTES;
}

#[expect(private_bounds, reason = "there are no other histograms than these")]
impl<const N: usize> Histogram<N>
where
    Histogram<N>: Bounds,
{
    /// Counts a value.
    pub fn observe(&self, value: u64) {
        let at = Self::BOUNDS.iter().position(|bound| value <= *bound);
        let bucket = at.and_then(|at| self.buckets.get(at)).unwrap_or(&self.beyond);
        bucket.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }
}

impl<const N: usize> Histogram<N> {
    /// How many values were counted.
    pub fn count(&self) -> u64 {
        let within: u64 = self.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).sum();
        within + self.beyond.load(Ordering::Relaxed)
    }

    /// Writes it in the exposition format; `unit` of the values are one of what is shown.
    pub fn render(
        &self,
        text: &mut String,
        name: &str,
        labels: &str,
        bounds: &[u64; N],
        unit: f64,
    ) {
        let name = format_args!("nginx_ingress_controller_{name}").to_string();
        let mut count = 0;
        for (bucket, bound) in self.buckets.iter().zip(bounds) {
            count += bucket.load(Ordering::Relaxed);
            let bound = shown(*bound, unit);
            let _ = writeln!(text, "{name}_bucket{{{labels},le=\"{bound}\"}} {count}");
        }
        count += self.beyond.load(Ordering::Relaxed);
        let _ = writeln!(text, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}");
        let sum = shown(self.sum.load(Ordering::Relaxed), unit);
        let _ = writeln!(text, "{name}_sum{{{labels}}} {sum}");
        let _ = writeln!(text, "{name}_count{{{labels}}} {count}");
    }
}

#[expect(clippy::cast_precision_loss, reason = "metrics are doubles")]
fn shown(value: u64, unit: f64) -> f64 {
    value as f64 / unit
}
