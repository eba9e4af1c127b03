//! The node's private containerd: its configuration, starting it so that it outlives the agent,
//! taking over one that already runs, keeping it running, and stopping it. Image archives are in [`crate::archives`].

use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::cri::Runtime;
use crate::error::Error;

/// A cold start on a busy machine; measured idle: 76 ms.
const START_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for.
const WATCH_PERIOD: Duration = Duration::from_secs(1);
/// The longest pause before one that keeps ending is started again.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(30);

/// The configuration file, made from ours. Every key that is not a path is there for a reason named
/// in `shared/reference/runtime.md`: nodes without CAP_SYS_RESOURCE, without AppArmor, and several
/// nodes on one kernel.
fn config_toml(config: &Config) -> String {
    let dir = config.containerd_dir();
    let quote = |path: &Path| serde_json::Value::from(path.to_string_lossy()).to_string();
    format!(
        r#"# Written by podium agent at every start; changes are lost.
version = 2
root = {root}
state = {state}
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
address = {socket}

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = {sandbox_image}
disable_apparmor = true
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
stream_server_address = "127.0.0.1"
stream_server_port = "0"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = {cni_bin_dir}
conf_dir = {cni_conf_dir}

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        root = quote(&dir.join("root")),
        state = quote(&dir.join("state")),
        socket = quote(&config.runtime_socket()),
        sandbox_image = serde_json::Value::from(config.sandbox_image.as_str()),
        cni_bin_dir = quote(&config.cni_bin_dir),
        cni_conf_dir = quote(&config.cni_conf_dir()),
    )
}

/// Makes sure that the runtime of this node answers, starting the private one where none does.
pub(crate) async fn ensure(config: &Config) -> Result<Runtime, Error> {
    let socket = config.runtime_socket();
    let runtime = Runtime::at_socket(&socket);
    if runtime.version().await.is_ok() {
        tracing::info!(socket = %socket.display(), "using the container runtime already running");
        return Ok(runtime);
    }
    if config.container_runtime_endpoint.is_some() {
        return Err(Error::Missing(format!(
            "no container runtime answers at {}",
            socket.display()
        )));
    }
    let ended = start(config)?;
    let deadline = Instant::now() + START_LIMIT;
    loop {
        match runtime.version().await {
            Ok(version) => {
                tracing::info!(version = version.runtime_version, "private containerd started");
                return Ok(runtime);
            }
            Err(error) if Instant::now() > deadline || ended.load(Ordering::SeqCst) => {
                return Err(Error::Missing(format!(
                    "the private containerd does not come up ({error}); its log is {}",
                    log_path(config).display()
                )));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// Starts it and returns a mark that is set when it ends. The mark, and not the process table, tells
/// a daemon that failed from one that is just starting: for a moment after fork(2) a process has no
/// command line of its own.
fn start(config: &Config) -> Result<Arc<AtomicBool>, Error> {
    let dir = config.containerd_dir();
    for folder in [dir.clone(), config.cni_conf_dir(), config.cni_state_dir()] {
        fs::create_dir_all(&folder).map_err(|e| Error::io("create", &folder, e))?;
    }
    let config_path = dir.join("config.toml");
    fs::write(&config_path, config_toml(config))
        .map_err(|e| Error::io("write", &config_path, e))?;
    let log_path = log_path(config);
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(|e| Error::io("open", &log_path, e))?;
    let log_again = log.try_clone().map_err(|e| Error::io("open", &log_path, e))?;
    // A process group of its own, so that a signal for the agent's group spares the containers.
    let child = Command::new(&config.containerd_binary)
        .arg("--config")
        .arg(&config_path)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(log_again)
        .process_group(0)
        .spawn()
        .map_err(|e| {
            Error::Missing(format!(
                "containerd cannot be started as {}: {e}; install the package containerd",
                config.containerd_binary.display()
            ))
        })?;
    let pid_path = pid_path(config);
    fs::write(&pid_path, child.id().to_string()).map_err(|e| Error::io("write", &pid_path, e))?;
    let ended = Arc::new(AtomicBool::new(false));
    let mark = ended.clone();
    // Reaped here, so that a containerd that dies early does not look alive as a zombie.
    std::thread::Builder::new()
        .name("containerd-wait".to_owned())
        .spawn(move || {
            let mut child = child;
            if let Ok(status) = child.wait() {
                tracing::warn!(%status, "private containerd ended");
            }
            mark.store(true, Ordering::SeqCst);
        })
        .map_err(|e| Error::io("wait for", &config_path, e))?;
    Ok(ended)
}

/// Starts the private containerd again whenever it ends; containers outlive it with their shims.
pub(crate) async fn keep(config: Config, shutdown: CancellationToken) {
    if config.container_runtime_endpoint.is_some() {
        return;
    }
    let mut pause = WATCH_PERIOD;
    while shutdown.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        if running_pid(&config).is_some() {
            pause = WATCH_PERIOD;
            continue;
        }
        tracing::warn!("the private containerd is gone and is started again");
        if let Err(error) = start(&config) {
            tracing::error!(%error, "private containerd not started");
        }
        pause = (pause * 2).min(RESTART_PAUSE_MAX);
    }
}

/// Ends the private containerd. Containers are not touched by this: their shims hold them.
pub(crate) async fn stop(config: &Config) -> Result<(), Error> {
    let Some(pid) = running_pid(config) else { return Ok(()) };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        if kill(pid, signal).is_err() {
            return Ok(());
        }
        let deadline = Instant::now() + STOP_LIMIT;
        while Instant::now() < deadline {
            if running_pid(config).is_none() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err(Error::Missing(format!("containerd with process id {pid} does not end")))
}

/// The process of the private containerd: the number in the pid file, if that process was really
/// started with our configuration file and is not merely one that got the number later.
pub(crate) fn running_pid(config: &Config) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(pid_path(config)).ok()?.trim().parse().ok()?;
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let expected = config.containerd_dir().join("config.toml");
    let expected = expected.to_string_lossy();
    command_line
        .split(|byte| *byte == 0)
        .any(|argument| argument == expected.as_bytes())
        .then(|| Pid::from_raw(pid))
}

fn pid_path(config: &Config) -> PathBuf {
    config.containerd_dir().join("containerd.pid")
}

fn log_path(config: &Config) -> PathBuf {
    config.containerd_dir().join("containerd.log")
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    #[test]
    fn configuration_keeps_two_nodes_apart() {
        let mut a = Config::new("a", IpAddr::V4(Ipv4Addr::LOCALHOST));
        a.data_dir = PathBuf::from("/d/\"a");
        let text = config_toml(&a);
        assert!(text.contains(r#"root = "/d/\"a/containerd/root""#), "{text}");
        assert!(text.contains("restrict_oom_score_adj = true"));
        assert!(text.contains(r#"conf_dir = "/d/\"a/cni/conf""#));
    }
}
