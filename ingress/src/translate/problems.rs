//! What is wrong at the moment, by what it was found in, and what of it is new.

use super::compile::PathKey;
use crate::objects::ObjectKey;
use crate::problem::Problem;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What problems are found in: each time it is looked at, its problems are replaced as a whole.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Objects that cannot be read.
    Unreadable,
    /// Options.
    Policy,
    /// The Secret of the default certificate.
    DefaultCertificate,
    /// An Ingress by itself.
    Ingress(Arc<ObjectKey>),
    /// The Services an Ingress names.
    Services(Arc<ObjectKey>),
    /// The certificates an Ingress names.
    Certificates(Arc<ObjectKey>),
    /// Ingresses that say different things about a host.
    Host(Arc<str>),
    /// Ingresses that want the same path of a host.
    Path(Arc<str>, PathKey),
    /// Hosts that want the same other name.
    Name(Arc<str>),
}

/// All problems.
#[derive(Debug, Default)]
pub struct Problems {
    by_source: BTreeMap<Source, Vec<Problem>>,
    /// Each one, and how many sources have it.
    counts: BTreeMap<Problem, usize>,
    /// Whether those that were touched were there at the last look.
    before: BTreeMap<Problem, bool>,
}

/// What is different.
#[derive(Debug, Default)]
pub struct ProblemChanges {
    /// New ones.
    pub new: Vec<Problem>,
    /// Those that are no more.
    pub gone: Vec<Problem>,
}

impl Problems {
    /// Replaces the problems found in something.
    pub fn set(&mut self, source: Source, found: Vec<Problem>) {
        let old = match found.is_empty() {
            true => self.by_source.remove(&source),
            false => self.by_source.insert(source.clone(), found.clone()),
        };
        for problem in found {
            let count = self.counts.entry(problem.clone()).or_default();
            self.before.entry(problem).or_insert(*count > 0);
            *count += 1;
        }
        for problem in old.into_iter().flatten() {
            if let Some(count) = self.counts.get_mut(&problem) {
                self.before.entry(problem.clone()).or_insert(true);
                *count -= 1;
                if *count == 0 {
                    self.counts.remove(&problem);
                }
            }
        }
    }

    /// All of them, sorted.
    pub fn all(&self) -> impl Iterator<Item = &Problem> {
        self.counts.keys()
    }

    /// What is different since this was last asked.
    pub fn take_changes(&mut self) -> ProblemChanges {
        let mut changes = ProblemChanges::default();
        for (problem, before) in std::mem::take(&mut self.before) {
            match (before, self.counts.contains_key(&problem)) {
                (false, true) => changes.new.push(problem),
                (true, false) => changes.gone.push(problem),
                _ => {}
            }
        }
        changes
    }
}
