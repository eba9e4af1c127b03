//! Samples into figures: percentiles of a run, medians over rounds, ratios between contenders, and
//! whether a run was quiet enough to tell them apart.

use serde_json::{Value, json};

/// Fewest rounds from which anything is concluded.
pub const ROUNDS_MIN: usize = 5;

/// One figure, once for each round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rounds(Vec<f64>);

impl From<Vec<f64>> for Rounds {
    fn from(figures: Vec<f64>) -> Rounds {
        Rounds(figures)
    }
}

impl Rounds {
    /// Adds the figure of the next round.
    pub fn push(&mut self, figure: f64) {
        self.0.push(figure);
    }

    /// How many rounds there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The middle one; of an even number the mean of the two in the middle. Not a number where there
    /// is no round.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// Of all rounds together.
    pub fn sum(&self) -> f64 {
        self.0.iter().sum()
    }

    /// The least.
    pub fn min(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The largest.
    pub fn max(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }

    /// Between which figures the median of very many rounds would lie, with 95 % likelihood: those
    /// whose rank is less than two standard deviations from the middle of the sorted rounds. Of five
    /// rounds these are the first and the last.
    pub fn likely(&self) -> (f64, f64) {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let (Some(last), count) = (sorted.len().checked_sub(1), sorted.len()) else {
            return (f64::NAN, f64::NAN);
        };
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "the number of rounds is small and its square root less than it"
        )]
        let rank = ((count as f64 - 1.96 * (count as f64).sqrt()) / 2.0).max(0.0) as usize;
        (sorted[rank], sorted[last - rank])
    }

    /// How this contender compares with another of the same rounds, round by round: what disturbs a
    /// round disturbs both.
    pub fn over(&self, baseline: &Rounds) -> Rounds {
        Rounds(self.0.iter().zip(&baseline.0).map(|(one, other)| one / other).collect())
    }

    /// All rounds, their median and their ends.
    pub fn to_json(&self) -> Value {
        json!({ "median": self.median(), "min": self.min(), "max": self.max(), "rounds": self.0 })
    }
}

/// What a figure has to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less.
    AtLeast(f64),
}

impl Bar {
    /// Compares the median; says that it cannot tell where too few rounds were measured, or where the
    /// bar lies within the likely range of the median and this is wider than `spread_max` of it.
    pub fn judge(self, found: &Rounds, spread_max: f64) -> Verdict {
        let ((min, max), median) = (found.likely(), found.median());
        if found.len() < ROUNDS_MIN || !median.is_finite() {
            return Verdict::CannotTell;
        }
        let (holds, straddles) = match self {
            Bar::AtMost(bar) => (median <= bar, min <= bar && bar < max),
            Bar::AtLeast(bar) => (median >= bar, min < bar && bar <= max),
        };
        if straddles && (max - min) / median > spread_max {
            return Verdict::CannotTell;
        }
        if holds { Verdict::Holds } else { Verdict::Missed }
    }
}

/// Whether a bar is met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is.
    Holds,
    /// It is not.
    Missed,
    /// The rounds differ too much among themselves.
    CannotTell,
}

impl Verdict {
    /// For tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Holds => "holds",
            Verdict::Missed => "missed",
            Verdict::CannotTell => "too noisy to tell",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounds(figures: &[f64]) -> Rounds {
        Rounds(figures.to_vec())
    }

    #[test]
    fn medians() {
        for (figures, median) in
            [(&[3.0][..], 3.0), (&[1.0, 9.0, 2.0], 2.0), (&[4.0, 1.0, 2.0, 3.0], 2.5)]
        {
            assert!((rounds(figures).median() - median).abs() < 1e-9, "{figures:?}");
        }
        assert!(rounds(&[]).median().is_nan());
    }

    #[test]
    fn many_rounds_narrow_the_median_down() {
        let figures: Vec<f64> = (1..=25).map(f64::from).collect();
        assert_eq!(rounds(&figures).likely(), (8.0, 18.0));
        assert_eq!(rounds(&figures[..5]).likely(), (1.0, 5.0));
        assert_eq!(rounds(&figures[..1]).likely(), (1.0, 1.0));
        assert!(rounds(&[]).likely().0.is_nan());
    }

    #[test]
    fn a_disturbed_round_disturbs_both() {
        let disturbed = rounds(&[10.0, 20.0, 10.0, 11.0, 10.0]);
        assert_eq!(Bar::AtMost(1.03).judge(&disturbed.over(&disturbed), 0.1), Verdict::Holds);
    }

    #[test]
    fn noise_is_no_verdict() {
        for (found, bar, verdict) in [
            (&[1.01, 1.02, 1.01, 1.02, 1.01][..], Bar::AtMost(1.03), Verdict::Holds),
            (&[1.10, 1.12, 1.11, 1.12, 1.11], Bar::AtMost(1.03), Verdict::Missed),
            (&[0.90, 1.02, 1.30, 1.02, 1.20], Bar::AtMost(1.03), Verdict::CannotTell),
            (&[2.0, 4.0, 6.0, 3.0, 2.5], Bar::AtMost(1.03), Verdict::Missed),
            (&[1.01, 1.01, 1.01], Bar::AtMost(1.03), Verdict::CannotTell),
            (&[3.1, 3.4, 9.0, 3.1, 3.1], Bar::AtLeast(3.0), Verdict::Holds),
            (&[1.1, 1.0, 1.2, 1.1, 1.1], Bar::AtLeast(3.0), Verdict::Missed),
            (&[2.0, 4.0, 5.0, 2.5, 3.5], Bar::AtLeast(3.0), Verdict::CannotTell),
        ] {
            assert_eq!(bar.judge(&rounds(found), 0.1), verdict, "{found:?}");
        }
    }
}
