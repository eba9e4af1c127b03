//! Completion indexes of Indexed Jobs (KEP-2214): which one a pod works on, and the compressed text
//! (`1,3-5,7`) in which a Job's status and its success policy name them.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use k8s_openapi::api::batch::v1::JobSpec;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;

/// Annotation and label of a pod.
pub(super) const COMPLETION_INDEX: &str = "batch.kubernetes.io/job-completion-index";

pub(super) type Indexes = BTreeSet<i32>;

/// How many indexes there are; none unless the Job is Indexed.
pub(super) fn count(spec: &JobSpec) -> Option<i32> {
    (spec.completion_mode.as_deref() == Some("Indexed")).then(|| spec.completions.unwrap_or(0))
}

/// The index a pod works on, if it is one of the Job's.
pub(super) fn of(pod: &Pod, count: i32) -> Option<i32> {
    let index = pod.annotations().get(COMPLETION_INDEX)?.parse().ok()?;
    (0..count).contains(&index).then_some(index)
}

/// Reads the compressed text; what is malformed, or no index of the Job, is left out.
pub(super) fn parse(text: &str, count: i32) -> Indexes {
    let mut indexes = Indexes::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Ok(first), Ok(last)) = (first.parse::<i32>(), last.parse::<i32>()) {
            indexes.extend(first.max(0)..=last.min(count.saturating_sub(1)));
        }
    }
    indexes
}

/// Three or more consecutive numbers are written as first and last.
pub(super) fn format(indexes: &Indexes) -> String {
    let mut text = String::new();
    let mut rest = indexes.iter().copied().peekable();
    while let Some(first) = rest.next() {
        let mut last = first;
        while let Some(next) = rest.next_if_eq(&(last + 1)) {
            last = next;
        }
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string does not fail.
        let _ = match last - first {
            0 => write!(text, "{comma}{first}"),
            1 => write!(text, "{comma}{first},{last}"),
            _ => write!(text, "{comma}{first}-{last}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compressed_text() {
        let cases: [(&[i32], &str); 5] = [
            (&[], ""),
            (&[0], "0"),
            (&[0, 1], "0,1"),
            (&[1, 3, 4, 5, 7], "1,3-5,7"),
            (&[0, 1, 2, 8, 9], "0-2,8,9"),
        ];
        for (indexes, text) in cases {
            let indexes: Indexes = indexes.iter().copied().collect();
            assert_eq!(format(&indexes), text);
            assert_eq!(parse(text, 10), indexes, "{text}");
        }
        assert_eq!(parse("0-5,x,9", 3), Indexes::from([0, 1, 2]));
    }
}
