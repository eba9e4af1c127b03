//! The ReplicaSets of a Deployment as they are and as they shall be: which one is the new one, what
//! revision it has, how many replicas each gets. Pure; what is written and said about it is left to
//! the plan.

use std::cmp::Reverse;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, ReplicaSet};

use super::limits::Limits;
use super::revision;

/// One step of a rollout, on copies of the sets.
pub(super) struct Rollout<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) spec: &'a DeploymentSpec,
    pub(super) limits: Limits,
    /// As they are, oldest first.
    pub(super) before: Vec<ReplicaSet>,
    /// As they shall be: the same ones in the same order, then the one to be made.
    pub(super) sets: Vec<ReplicaSet>,
    /// The set with the Deployment's own template.
    pub(super) current: Option<usize>,
    /// Sets the history has no room for.
    pub(super) forgotten: Vec<usize>,
}

impl<'a> Rollout<'a> {
    pub(super) fn new(
        deployment: &'a Deployment,
        spec: &'a DeploymentSpec,
        sets: &[ReplicaSet],
    ) -> Self {
        let mut before = sets.to_vec();
        before.sort_by_cached_key(|set| {
            let created = set.metadata.creation_timestamp.as_ref().map(|time| time.0);
            (created, set.metadata.name.clone())
        });
        let wanted = revision::template_text(&spec.template);
        let current = before.iter().position(|set| {
            let template = set.spec.as_ref().and_then(|spec| spec.template.as_ref());
            template.is_some_and(|template| revision::template_text(template) == wanted)
        });
        let limits = Limits::of(spec);
        let sets = before.clone();
        let mut rollout =
            Self { deployment, spec, limits, before, sets, current, forgotten: Vec::new() };
        rollout.number();
        rollout
    }

    /// The new set carries the Deployment's annotations and the highest revision.
    fn number(&mut self) {
        let Some(index) = self.current else { return };
        let next = self.next_revision();
        let set = &mut self.sets[index];
        revision::annotate(set, self.deployment, next);
        if let Some(spec) = &mut set.spec {
            spec.min_ready_seconds = self.spec.min_ready_seconds;
        }
    }

    fn next_revision(&self) -> i64 {
        self.old().map(|index| revision::of(&self.sets[index].metadata)).max().unwrap_or(0) + 1
    }

    /// Indices of all sets but the new one, oldest first.
    fn old(&self) -> impl Iterator<Item = usize> + use<> {
        let current = self.current;
        (0..self.sets.len()).filter(move |index| Some(*index) != current)
    }

    fn active(&self) -> Vec<usize> {
        (0..self.sets.len()).filter(|index| replicas(&self.sets[*index]) > 0).collect()
    }

    fn total(&self) -> i32 {
        self.sets.iter().map(replicas).sum()
    }

    fn resize(&mut self, index: usize, to: i32) {
        let set = &mut self.sets[index];
        revision::note_size(set, &self.limits);
        if let Some(spec) = &mut set.spec {
            spec.replicas = Some(to);
        }
    }

    /// As upstream's `scaleReplicaSetAndRecordEvent`: a set of the right size is not touched.
    fn resize_if_needed(&mut self, index: usize, to: i32) -> bool {
        let needed = replicas(&self.sets[index]) != to;
        if needed {
            self.resize(index, to);
        }
        needed
    }

    /// Whether the Deployment was scaled since its sets were sized.
    pub(super) fn was_scaled(&self) -> bool {
        self.active().into_iter().any(|index| {
            revision::desired(&self.sets[index])
                .is_some_and(|desired| desired != self.limits.desired)
        })
    }

    /// Scaling, which also a paused Deployment does: of the only set that runs, or of all in
    /// proportion.
    pub(super) fn scale(&mut self) {
        let active = self.active();
        let newest_old = self.old().last();
        let only = match active.as_slice() {
            [] => self.current.or(newest_old),
            [one] => Some(*one),
            _ => None,
        };
        if let Some(index) = only {
            self.resize_if_needed(index, self.limits.desired);
        } else if self.is_saturated() {
            for index in self.old() {
                self.resize_if_needed(index, 0);
            }
        } else if !self.limits.recreate && !active.is_empty() {
            self.scale_in_proportion(active);
        }
    }

    fn is_saturated(&self) -> bool {
        self.current.is_some_and(|index| {
            let (set, desired) = (&self.sets[index], self.limits.desired);
            replicas(set) == desired
                && revision::desired(set) == Some(desired)
                && available(set) == desired
        })
    }

    fn scale_in_proportion(&mut self, mut active: Vec<usize>) {
        let allowed =
            if self.limits.desired > 0 { self.limits.desired + self.limits.surge } else { 0 };
        let to_add = allowed - self.total();
        // Largest first; of equal ones the newer grows and the older shrinks first.
        if to_add > 0 {
            active.sort_by_key(|index| (Reverse(replicas(&self.sets[*index])), Reverse(*index)));
        } else {
            active.sort_by_key(|index| (Reverse(replicas(&self.sets[*index])), *index));
        }
        let mut added = 0;
        let mut sizes = Vec::new();
        for index in &active {
            let set = &self.sets[*index];
            let (share, left) = (self.share(set), to_add - added);
            let share = if to_add > 0 { share.min(left) } else { share.max(left) };
            added += share;
            sizes.push(replicas(set) + share);
        }
        if let Some(largest) = sizes.first_mut() {
            *largest = (*largest + to_add - added).max(0);
        }
        for (index, size) in active.into_iter().zip(sizes) {
            self.resize(index, size);
        }
    }

    /// How much a set grows when the Deployment does, rounded.
    fn share(&self, set: &ReplicaSet) -> i32 {
        let size = replicas(set);
        if self.limits.desired == 0 {
            return -size;
        }
        let status = self.deployment.status.as_ref();
        let total = status.and_then(|status| status.replicas).unwrap_or(0);
        let before = i64::from(revision::max(set).filter(|max| *max > 0).unwrap_or(total));
        if before <= 0 {
            return 0;
        }
        let max = i64::from(self.limits.desired + self.limits.surge);
        let scaled = (2 * i64::from(size) * max + before) / (2 * before);
        i32::try_from(scaled).unwrap_or(i32::MAX) - size
    }

    /// The next step of a rolling update: makes the new set or lets it grow, or else lets old ones
    /// shrink.
    pub(super) fn roll(&mut self) {
        let index = self.current.unwrap_or_else(|| self.make());
        let desired = self.limits.desired;
        let now = replicas(&self.sets[index]);
        let room = (desired + self.limits.surge - self.total()).max(0);
        let to = if now > desired { desired } else { now + room.min(desired - now) };
        if !self.resize_if_needed(index, to) && !self.shrink_old(index) && self.is_complete() {
            self.forget();
        }
    }

    /// The next step of a replacement: ends all old pods, then makes the new ones.
    pub(super) fn recreate(&mut self) {
        let mut shrunk = false;
        for index in self.old() {
            shrunk |= self.resize_if_needed(index, 0);
        }
        if shrunk || self.old().any(|index| pods(&self.sets[index]) > 0) {
            return;
        }
        let index = self.current.unwrap_or_else(|| self.make());
        self.resize_if_needed(index, self.limits.desired);
        if self.is_complete() {
            self.forget();
        }
    }

    fn make(&mut self) -> usize {
        let room = (self.limits.desired + self.limits.surge - self.total()).max(0);
        let size =
            if self.limits.recreate { self.limits.desired } else { room.min(self.limits.desired) };
        let revision = self.next_revision();
        let mut set = revision::new_set(self.deployment, self.spec, size, revision);
        revision::note_size(&mut set, &self.limits);
        self.sets.push(set);
        let index = self.sets.len() - 1;
        self.current = Some(index);
        index
    }

    /// Old sets shrink by as many as the availability allows: first pods that do not serve anyway.
    fn shrink_old(&mut self, new: usize) -> bool {
        let min_available = self.limits.desired - self.limits.unavailable;
        let new_set = &self.sets[new];
        let new_unavailable = replicas(new_set) - available(new_set);
        let mut may_go = self.total() - min_available - new_unavailable;
        if may_go <= 0 {
            return false;
        }
        let mut shrunk = false;
        for index in self.old() {
            let set = &self.sets[index];
            let unhealthy = (replicas(set) - available(set)).clamp(0, may_go);
            let to = replicas(set) - unhealthy;
            may_go -= unhealthy;
            shrunk |= self.resize_if_needed(index, to);
        }
        let serving: i32 = self.sets.iter().map(available).sum();
        let mut may_go = (serving - min_available).max(0);
        for index in self.old() {
            let size = replicas(&self.sets[index]);
            let going = size.min(may_go);
            may_go -= going;
            shrunk |= self.resize_if_needed(index, size - going);
        }
        shrunk
    }

    /// Whether the status written last says that all is done.
    fn is_complete(&self) -> bool {
        let desired = Some(self.limits.desired);
        self.deployment.status.as_ref().is_some_and(|status| {
            let wanted = desired.filter(|desired| *desired != 0);
            status.updated_replicas.filter(|count| *count != 0) == wanted
                && status.replicas.filter(|count| *count != 0) == wanted
                && status.available_replicas.filter(|count| *count != 0) == wanted
                && status.observed_generation >= self.deployment.metadata.generation
        })
    }

    /// Chooses the sets the history has no room for, lowest revision first.
    pub(super) fn forget(&mut self) {
        let limit = self.spec.revision_history_limit.unwrap_or(10);
        let limit = usize::try_from(limit).unwrap_or(0);
        let mut old: Vec<usize> = self.old().filter(|index| *index < self.before.len()).collect();
        old.sort_by_key(|index| revision::of(&self.sets[*index].metadata));
        let excess = old.len().saturating_sub(limit);
        old.truncate(excess);
        old.retain(|index| {
            let set = &self.sets[*index];
            let observed = set.status.as_ref().and_then(|status| status.observed_generation);
            replicas(set) == 0
                && set.status.as_ref().is_none_or(|status| status.replicas == 0)
                && observed >= set.metadata.generation
        });
        self.forgotten = old;
    }
}

/// How many pods a set is asked for.
pub(super) fn replicas(set: &ReplicaSet) -> i32 {
    set.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1)
}

/// How many of a set's pods are available.
pub(super) fn available(set: &ReplicaSet) -> i32 {
    set.status.as_ref().and_then(|status| status.available_replicas).unwrap_or(0)
}

/// Pods of a set that run, terminating ones included.
fn pods(set: &ReplicaSet) -> i32 {
    let status = set.status.as_ref();
    status.map_or(0, |status| status.replicas + status.terminating_replicas.unwrap_or(0))
}
