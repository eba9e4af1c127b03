//! The container runtime through CRI v1: one method a call, each with its time limit and an error
//! that names the call and its object. What to call when is decided elsewhere.

use std::collections::HashMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use k8s_cri::v1 as cri;
use k8s_cri::v1::image_service_client::ImageServiceClient;
use k8s_cri::v1::runtime_service_client::RuntimeServiceClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::error::Error;

/// Most calls are answered from memory or after one fork.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// A sandbox waits for CNI plugins, a stop for a container's own end.
const SLOW_CALL_LIMIT: Duration = Duration::from_secs(240);
/// A pull moves an image over the network.
const PULL_LIMIT: Duration = Duration::from_secs(3600);
/// An exec answer may carry 16 MiB of output.
const MESSAGE_BYTES_MAX: usize = 16 << 20;

/// A connection to the runtime; clones share it, and it reconnects by itself.
#[derive(Clone)]
pub(crate) struct Runtime {
    runtime: RuntimeServiceClient<Channel>,
    images: ImageServiceClient<Channel>,
}

/// What an exec inside a container gave.
#[derive(Clone, Debug)]
pub(crate) struct ExecOutput {
    pub(crate) exit_code: i32,
    /// Standard output followed by standard error.
    pub(crate) output: Vec<u8>,
}

impl Runtime {
    /// Prepares a connection to the socket; it is opened by the first call.
    pub(crate) fn at_socket(socket: &Path) -> Self {
        let socket = socket.to_path_buf();
        let connect = move |_: Uri| {
            let socket: PathBuf = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        };
        let channel = Endpoint::from_static("http://cri.invalid")
            .connect_with_connector_lazy(tower::service_fn(connect));
        Self {
            runtime: RuntimeServiceClient::new(channel.clone())
                .max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    pub(crate) async fn version(&self) -> Result<cri::VersionResponse, Error> {
        let request = cri::VersionRequest { version: "v1".to_owned() };
        call("Version", "", CALL_LIMIT, self.runtime.clone().version(request)).await
    }

    pub(crate) async fn conditions(&self) -> Result<Vec<cri::RuntimeCondition>, Error> {
        let request = cri::StatusRequest { verbose: false };
        let answer = call("Status", "", CALL_LIMIT, self.runtime.clone().status(request)).await?;
        Ok(answer.status.map(|status| status.conditions).unwrap_or_default())
    }

    pub(crate) async fn run_sandbox(&self, config: cri::PodSandboxConfig) -> Result<String, Error> {
        let object = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request =
            cri::RunPodSandboxRequest { config: Some(config), runtime_handler: String::new() };
        let answer = call(
            "RunPodSandbox",
            &object,
            SLOW_CALL_LIMIT,
            self.runtime.clone().run_pod_sandbox(request),
        )
        .await?;
        Ok(answer.pod_sandbox_id)
    }

    pub(crate) async fn stop_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = cri::StopPodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let mut client = self.runtime.clone();
        gone_is_fine(
            call("StopPodSandbox", id, SLOW_CALL_LIMIT, client.stop_pod_sandbox(request)).await,
        )
    }

    pub(crate) async fn remove_sandbox(&self, id: &str) -> Result<(), Error> {
        let request = cri::RemovePodSandboxRequest { pod_sandbox_id: id.to_owned() };
        let mut client = self.runtime.clone();
        gone_is_fine(
            call("RemovePodSandbox", id, SLOW_CALL_LIMIT, client.remove_pod_sandbox(request)).await,
        )
    }

    pub(crate) async fn sandbox_status(&self, id: &str) -> Result<cri::PodSandboxStatus, Error> {
        let request =
            cri::PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
        let mut client = self.runtime.clone();
        let answer =
            call("PodSandboxStatus", id, CALL_LIMIT, client.pod_sandbox_status(request)).await?;
        answer.status.ok_or_else(|| empty("PodSandboxStatus", id))
    }

    pub(crate) async fn list_sandboxes(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<cri::PodSandbox>, Error> {
        let filter = cri::PodSandboxFilter { label_selector: labels, ..Default::default() };
        let request = cri::ListPodSandboxRequest { filter: Some(filter) };
        let mut client = self.runtime.clone();
        let answer =
            call("ListPodSandbox", "", CALL_LIMIT, client.list_pod_sandbox(request)).await?;
        Ok(answer.items)
    }

    pub(crate) async fn list_containers(
        &self,
        labels: HashMap<String, String>,
    ) -> Result<Vec<cri::Container>, Error> {
        let filter = cri::ContainerFilter { label_selector: labels, ..Default::default() };
        let request = cri::ListContainersRequest { filter: Some(filter) };
        let mut client = self.runtime.clone();
        let answer =
            call("ListContainers", "", CALL_LIMIT, client.list_containers(request)).await?;
        Ok(answer.containers)
    }

    pub(crate) async fn create_container(
        &self,
        sandbox_id: &str,
        config: cri::ContainerConfig,
        sandbox_config: cri::PodSandboxConfig,
    ) -> Result<String, Error> {
        let object = config.metadata.as_ref().map(|m| m.name.clone()).unwrap_or_default();
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox_id.to_owned(),
            config: Some(config),
            sandbox_config: Some(sandbox_config),
        };
        let mut client = self.runtime.clone();
        let answer =
            call("CreateContainer", &object, SLOW_CALL_LIMIT, client.create_container(request))
                .await?;
        Ok(answer.container_id)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<(), Error> {
        let request = cri::StartContainerRequest { container_id: id.to_owned() };
        let mut client = self.runtime.clone();
        call("StartContainer", id, SLOW_CALL_LIMIT, client.start_container(request)).await?;
        Ok(())
    }

    /// Asks the container to end, and kills it once `grace` is over.
    pub(crate) async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = cri::StopContainerRequest { container_id: id.to_owned(), timeout };
        let mut client = self.runtime.clone();
        let limit = grace + SLOW_CALL_LIMIT;
        gone_is_fine(call("StopContainer", id, limit, client.stop_container(request)).await)
    }

    pub(crate) async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let request = cri::RemoveContainerRequest { container_id: id.to_owned() };
        let mut client = self.runtime.clone();
        gone_is_fine(
            call("RemoveContainer", id, SLOW_CALL_LIMIT, client.remove_container(request)).await,
        )
    }

    pub(crate) async fn container_status(&self, id: &str) -> Result<cri::ContainerStatus, Error> {
        let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
        let mut client = self.runtime.clone();
        let answer =
            call("ContainerStatus", id, CALL_LIMIT, client.container_status(request)).await?;
        answer.status.ok_or_else(|| empty("ContainerStatus", id))
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<(), Error> {
        let request = cri::ReopenContainerLogRequest { container_id: id.to_owned() };
        let mut client = self.runtime.clone();
        call("ReopenContainerLog", id, CALL_LIMIT, client.reopen_container_log(request)).await?;
        Ok(())
    }

    /// Runs a command in the container; the runtime ends it after `limit`.
    pub(crate) async fn exec(
        &self,
        id: &str,
        command: &[String],
        limit: Duration,
    ) -> Result<ExecOutput, Error> {
        let request = cri::ExecSyncRequest {
            container_id: id.to_owned(),
            cmd: command.to_vec(),
            timeout: i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX),
        };
        let mut client = self.runtime.clone();
        // The runtime enforces the limit; ours only guards against a runtime that hangs.
        let guard = limit + Duration::from_secs(30);
        let answer = call("ExecSync", id, guard, client.exec_sync(request)).await?;
        let mut output = answer.stdout;
        output.extend_from_slice(&answer.stderr);
        Ok(ExecOutput { exit_code: answer.exit_code, output })
    }

    /// The image of this name if it is on the node.
    pub(crate) async fn image(&self, name: &str) -> Result<Option<cri::Image>, Error> {
        let request = cri::ImageStatusRequest { image: Some(image_spec(name)), verbose: false };
        let mut client = self.images.clone();
        Ok(call("ImageStatus", name, CALL_LIMIT, client.image_status(request)).await?.image)
    }

    pub(crate) async fn list_images(&self) -> Result<Vec<cri::Image>, Error> {
        let request = cri::ListImagesRequest { filter: None };
        let mut client = self.images.clone();
        Ok(call("ListImages", "", CALL_LIMIT, client.list_images(request)).await?.images)
    }

    pub(crate) async fn pull_image(&self, name: &str) -> Result<(), Error> {
        let request = cri::PullImageRequest { image: Some(image_spec(name)), ..Default::default() };
        let mut client = self.images.clone();
        call("PullImage", name, PULL_LIMIT, client.pull_image(request)).await?;
        Ok(())
    }
}

/// The image reference of a CRI request.
pub(crate) fn image_spec(name: &str) -> cri::ImageSpec {
    cri::ImageSpec { image: name.to_owned(), ..Default::default() }
}

async fn call<T>(
    operation: &'static str,
    object: &str,
    limit: Duration,
    request: impl Future<Output = Result<tonic::Response<T>, tonic::Status>>,
) -> Result<T, Error> {
    let answer = match tokio::time::timeout(limit, request).await {
        Ok(answer) => answer,
        Err(_) => Err(tonic::Status::deadline_exceeded(format!(
            "no answer from the container runtime after {} s",
            limit.as_secs()
        ))),
    };
    answer.map(tonic::Response::into_inner).map_err(|status| Error::Runtime {
        operation,
        object: object.to_owned(),
        status: Box::new(status),
    })
}

fn gone_is_fine<T>(result: Result<T, Error>) -> Result<(), Error> {
    match result {
        Err(error) if !error.is_runtime_not_found() => Err(error),
        _ => Ok(()),
    }
}

fn empty(operation: &'static str, object: &str) -> Error {
    Error::Runtime {
        operation,
        object: object.to_owned(),
        status: Box::new(tonic::Status::internal("the answer carries no status")),
    }
}
