//! Lifecycle hooks: postStart and preStop, as a command in the container, an HTTP request or a pause.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler};

use crate::cri::Runtime;
use crate::probe::attempt::{self, Target};

/// Runs a hook; `Err` says why it failed.
pub(crate) async fn run(
    runtime: &Runtime,
    spec: &Container,
    handler: &LifecycleHandler,
    target: &Target,
    limit: Duration,
) -> Result<(), String> {
    let attempt = async {
        if let Some(exec) = &handler.exec {
            let command = exec.command.as_deref().unwrap_or_default();
            let answer = runtime
                .exec(&target.container_id, command, limit)
                .await
                .map_err(|error| error.to_string())?;
            if answer.exit_code != 0 {
                let output = String::from_utf8_lossy(&answer.output);
                return Err(format!("command exited with {}: {output}", answer.exit_code));
            }
            return Ok(());
        }
        if let Some(action) = &handler.http_get {
            let (status, _) = attempt::http_get(spec, action, target).await?;
            return if status < 400 { Ok(()) } else { Err(format!("HTTP status {status}")) };
        }
        if let Some(sleep) = &handler.sleep {
            let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            return Ok(());
        }
        Err("invalid handler: neither exec, httpGet nor sleep".to_owned())
    };
    match tokio::time::timeout(limit, attempt).await {
        Ok(result) => result,
        Err(_) => Err(format!("did not end within {} s", limit.as_secs())),
    }
}
