//! Undoing all of a node: pods, the private containerd, mounts, cgroups, bridge and routes. To be run
//! where the agent ran, in the same network namespace.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use futures::future::join_all;

use crate::config::Config;
use crate::cri::Runtime;
use crate::error::Error;
use crate::pod::observed::key;
use crate::{cgroup, containerd, network, volumes};

const GRACE: Duration = Duration::from_secs(2);
const REMOVE_TRIES_MAX: usize = 5;
const REMOVE_RETRY_PAUSE: Duration = Duration::from_millis(500);

/// Ends all pods of the node and removes everything the agent made. The first problem is returned
/// after all the rest has been tried.
pub async fn teardown(config: Config) -> Result<(), Error> {
    config.validate()?;
    let mut problems = Vec::new();
    let private = config.container_runtime_endpoint.is_none();
    let has_state = config.containerd_dir().join("config.toml").is_file();
    // Shims outlive a dead containerd: it has to be up for them to be ended.
    if !private || has_state {
        match containerd::ensure(&config).await {
            Ok(runtime) => problems.extend(remove_pods_patiently(&config, &runtime).await),
            Err(error) => problems.push(error),
        }
    }
    if private {
        problems.extend(containerd::stop(&config).await.err());
    }
    for dir in
        [config.pods_dir(), config.logs_dir(), config.containerd_dir(), config.data_dir.join("cni")]
    {
        problems.extend(volumes::tear_down(&dir).err());
    }
    match cgroup::Hierarchies::discover() {
        Ok(hierarchies) => problems.extend(hierarchies.remove(&config.cgroup_root).err()),
        Err(error) => problems.push(error),
    }
    problems.extend(network::remove().await);
    // Only if nothing but ours was in it.
    if fs::remove_dir(&config.data_dir).is_err() {
        tracing::debug!(dir = %config.data_dir.display(), "data folder kept: not empty");
    }
    for problem in &problems {
        tracing::error!(error = %problem, "teardown");
    }
    problems.into_iter().next().map_or(Ok(()), Err)
}

/// An agent that was ended a moment ago may have left a container that is just being started, which
/// the runtime does not let go before it has.
async fn remove_pods_patiently(config: &Config, runtime: &Runtime) -> Vec<Error> {
    let mut problems = Vec::new();
    for _ in 0..REMOVE_TRIES_MAX {
        problems = remove_pods(config, runtime).await;
        if problems.is_empty() {
            break;
        }
        tokio::time::sleep(REMOVE_RETRY_PAUSE).await;
    }
    problems
}

async fn remove_pods(config: &Config, runtime: &Runtime) -> Vec<Error> {
    let filter = HashMap::from([(key::NODE.to_owned(), config.node_name.clone())]);
    let lists = tokio::try_join!(
        runtime.list_containers(filter.clone()),
        runtime.list_sandboxes(filter.clone())
    );
    let (containers, sandboxes) = match lists {
        Ok(lists) => lists,
        Err(error) => return vec![error],
    };
    let containers = containers.iter().map(|container| async {
        runtime.stop_container(&container.id, GRACE).await?;
        runtime.remove_container(&container.id).await
    });
    let mut problems: Vec<Error> =
        join_all(containers).await.into_iter().filter_map(Result::err).collect();
    let sandboxes = sandboxes.iter().map(|sandbox| async {
        runtime.stop_sandbox(&sandbox.id).await?;
        runtime.remove_sandbox(&sandbox.id).await
    });
    problems.extend(join_all(sandboxes).await.into_iter().filter_map(Result::err));
    problems
}
