//! What is wrong is said once, and once more that it is solved: in the log, in Events on the objects
//! and as a metric.

use std::collections::BTreeSet;

use prometheus::IntGauge;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::{model::Problem, plan::Limit};

/// What was said so far.
pub struct Reports {
    /// Who tells the owners of objects.
    teller: Option<mpsc::Sender<Problem>>,
    /// Counts problems.
    count: IntGauge,
    said: BTreeSet<Problem>,
    /// Maps that had no room at the last pass.
    full: BTreeSet<Limit>,
}

impl Reports {
    /// Nothing was said yet.
    pub const fn new(teller: Option<mpsc::Sender<Problem>>, count: IntGauge) -> Self {
        Self { teller, count, said: BTreeSet::new(), full: BTreeSet::new() }
    }

    /// The maps that have no room.
    pub fn full(&mut self, full: BTreeSet<Limit>) {
        for limit in full.difference(&self.full) {
            error!("map {} is full: raise {}", limit.map(), limit.flag());
        }
        self.full = full;
    }

    /// All that is wrong now. What is `unplaced` is the fault of no object, and this node does not
    /// do its job.
    pub fn problems(&mut self, mut problems: BTreeSet<Problem>, unplaced: &BTreeSet<Problem>) {
        problems.extend(unplaced.iter().cloned());
        for problem in problems.difference(&self.said) {
            if unplaced.contains(problem) {
                error!("{problem}");
            } else {
                warn!("{problem}");
            }
            if let Some(teller) = &self.teller {
                // What does not fit into the queue is in the log.
                drop(teller.try_send(problem.clone()));
            }
        }
        for problem in self.said.difference(&problems) {
            info!("solved: {problem}");
        }
        self.count.set(i64::try_from(problems.len()).unwrap_or(i64::MAX));
        self.said = problems;
    }
}
