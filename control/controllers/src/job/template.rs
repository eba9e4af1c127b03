//! The pods of a Job, made from its template.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};
use kube::ResourceExt as _;

use super::indexes::COMPLETION_INDEX;
use crate::replica_set::{new_pod, owner};

/// Finalizer that keeps a finished pod until the Job has counted it (KEP-2307).
pub(super) const TRACKING: &str = "batch.kubernetes.io/job-tracking";
const INDEX_ENV: &str = "JOB_COMPLETION_INDEX";
/// 63 characters less the five that the server appends.
const GENERATE_NAME_LENGTH_MAX: usize = 58;

/// One more pod of a Job.
pub(super) fn pod(job: &Job, index: Option<i32>) -> Pod {
    let template = job.spec.as_ref().map(|spec| spec.template.clone()).unwrap_or_default();
    let mut pod = new_pod(&template, &job.name_any(), job.namespace(), owner(job));
    let finalizers = pod.finalizers_mut();
    if !finalizers.iter().any(|finalizer| finalizer == TRACKING) {
        finalizers.push(TRACKING.to_owned());
    }
    if let Some(index) = index {
        give_index(&mut pod, &job.name_any(), index);
    }
    pod
}

fn give_index(pod: &mut Pod, job_name: &str, index: i32) {
    let text = index.to_string();
    pod.annotations_mut().insert(COMPLETION_INDEX.to_owned(), text.clone());
    pod.labels_mut().insert(COMPLETION_INDEX.to_owned(), text);
    let suffix = format!("-{index}-");
    let room = GENERATE_NAME_LENGTH_MAX.saturating_sub(suffix.len());
    let prefix: String = job_name.chars().take(room).collect();
    pod.metadata.generate_name = Some(prefix + &suffix);
    let Some(spec) = pod.spec.as_mut() else { return };
    spec.hostname = Some(format!("{job_name}-{index}"));
    let init = spec.init_containers.iter_mut().flatten();
    for container in init.chain(&mut spec.containers) {
        give_index_env(container);
    }
}

fn give_index_env(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_ENV) {
        return;
    }
    env.push(EnvVar {
        name: INDEX_ENV.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector {
                api_version: None,
                field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
            }),
            ..EnvVarSource::default()
        }),
    });
}
