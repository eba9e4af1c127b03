//! `podium server` in a namespace of its own, and credentials for its clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::binaries::Binaries;
use crate::fabric::{CONTROL_ADDRESS, Fabric};
use crate::kubectl::Kubectl;
use crate::netns::Netns;
use crate::process::{Launch, Process};
use crate::wait::wait_until;
use crate::workdir::Workdir;

/// A loaded machine of two cores is given time.
const START_LIMIT: Duration = Duration::from_secs(60);
const API_PORT: u16 = 6443;

/// Addresses for Services of type LoadBalancer (TEST-NET-1 of RFC 5737).
const LOAD_BALANCER_CIDR: &str = "192.0.2.0/24";

/// `podium server` in a namespace.
#[derive(Debug)]
pub struct ControlPlane {
    /// The server.
    pub process: Process,
    /// Its namespace.
    pub netns: Netns,
    data_dir: PathBuf,
}

impl ControlPlane {
    pub(super) fn start(
        workdir: &Workdir,
        binaries: &Binaries,
        fabric: &Fabric,
    ) -> anyhow::Result<Self> {
        let netns = fabric.join(workdir, "control", CONTROL_ADDRESS)?;
        let data_dir = workdir.path().join("control");
        let process = Self::launch(workdir, binaries, &netns, &data_dir)?;
        let mut control = Self { process, netns, data_dir };
        control.wait_ready()?;
        Ok(control)
    }

    fn launch(
        workdir: &Workdir,
        binaries: &Binaries,
        netns: &Netns,
        data_dir: &Path,
    ) -> anyhow::Result<Process> {
        let address = CONTROL_ADDRESS.to_string();
        Launch::new("server", &binaries.find("podium")?)
            .args(["server", "--bind-address", &address, "--advertise-address", &address])
            .args(["--service-cidr", "10.96.0.0/16", "--cluster-cidr", "10.244.0.0/16"])
            // The demo forwards a port of the host's loopback to it.
            .args(["--tls-san", "127.0.0.1"])
            .args(["--load-balancer-cidr", LOAD_BALANCER_CIDR, "--data-dir"])
            .args([data_dir])
            .inside(Some(netns.name()), None)?
            .spawn(workdir)
    }

    /// Starts it again, on the same data, after it was killed or stopped.
    ///
    /// # Errors
    /// When it does not become ready.
    pub fn restart(&mut self, workdir: &Workdir, binaries: &Binaries) -> anyhow::Result<()> {
        self.process.stop();
        self.process = Self::launch(workdir, binaries, &self.netns, &self.data_dir)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> anyhow::Result<()> {
        let url = format!("https://{CONTROL_ADDRESS}:{API_PORT}/readyz");
        let kubeconfig = self.admin_kubeconfig();
        let netns = self.netns.name().to_owned();
        let process = &mut self.process;
        wait_until("API server ready", START_LIMIT, || {
            // A server that has ended will not become ready: reported below.
            if process.ended().is_some() {
                return Ok(());
            }
            let curl = Launch::new("curl", Path::new("curl"))
                .args(["--silent", "--show-error", "--insecure", "--fail", "--max-time", "2", &url])
                .inside(Some(&netns), None);
            let answer = curl.and_then(Launch::output).map_err(|error| format!("{error:#}"))?;
            if !kubeconfig.is_file() {
                return Err(format!("{answer}, but no {}", kubeconfig.display()));
            }
            Ok(())
        })
        .with_context(|| process.log_tail())?;
        process.check_alive()
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// `binary` as the cluster's administrator, its caches in `home`.
    pub fn kubectl(&self, binary: &Path, home: &Path) -> Kubectl {
        Kubectl::new(binary, &self.admin_kubeconfig(), home, self.netns.name())
    }

    /// Writes the kubeconfig of another user and gives its path.
    ///
    /// # Errors
    /// When `podium kubeconfig` fails, with its words.
    pub fn kubeconfig_for(
        &self,
        workdir: &Workdir,
        binaries: &Binaries,
        user: &str,
        group: &str,
    ) -> anyhow::Result<PathBuf> {
        let path = workdir.path().join(format!("{}.kubeconfig", user.replace(':', "-")));
        let server = format!("https://{CONTROL_ADDRESS}:{API_PORT}");
        Launch::new("podium kubeconfig", &binaries.find("podium")?)
            .args(["kubeconfig", "--user", user, "--group", group, "--server", &server])
            .args([Path::new("--data-dir"), &self.data_dir, Path::new("-o"), &path])
            .output()?;
        Ok(path)
    }
}
