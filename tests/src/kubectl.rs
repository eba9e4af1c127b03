//! The real kubectl, of a chosen release, as a user would run it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::process::{Client, Launch};
use crate::wait::wait_until;

/// kubectl with a kubeconfig, run inside a namespace.
#[derive(Clone, Debug)]
pub struct Kubectl {
    binary: PathBuf,
    kubeconfig: PathBuf,
    home: PathBuf,
    netns: String,
}

impl Kubectl {
    /// `binary` talks to the cluster of `kubeconfig` from inside `netns`; its caches go to `home`.
    pub fn new(binary: &Path, kubeconfig: &Path, home: &Path, netns: &str) -> Self {
        Self {
            binary: binary.to_path_buf(),
            kubeconfig: kubeconfig.to_path_buf(),
            home: home.to_path_buf(),
            netns: netns.to_owned(),
        }
    }

    /// The program.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    fn launch(&self, args: &[&str]) -> anyhow::Result<Launch> {
        Launch::new(&format!("kubectl {}", args.join(" ")), &self.binary)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .inside(Some(&self.netns), None)
    }

    /// Runs it and gives what it printed.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        self.launch(args)?.output()
    }

    /// Starts it, for a command that follows something.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, args: &[&str]) -> anyhow::Result<Client> {
        self.launch(args)?.start_client()
    }

    /// Runs it with `-o json` and reads what it printed.
    ///
    /// # Errors
    /// When it fails, with its words, or prints something else.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        let mut all = args.to_vec();
        all.extend(["-o", "json"]);
        let text = self.run(&all)?;
        serde_json::from_str(&text).with_context(|| format!("read kubectl {}", all.join(" ")))
    }

    /// Runs it with a manifest on its standard input, successful or not.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn with_input(&self, args: &[&str], manifest: &str) -> anyhow::Result<Output> {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net=/run/netns/{}", self.netns))
            .arg(&self.binary)
            .args(args)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HOME", &self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().context("start kubectl")?;
        let mut stdin = child.stdin.take().context("kubectl without input")?;
        stdin.write_all(manifest.as_bytes()).context("write to kubectl")?;
        drop(stdin);
        child.wait_with_output().context("wait for kubectl")
    }

    /// Reads an object, or a list, until it is as `right` says.
    ///
    /// # Errors
    /// After `limit`, with what was read last, shortened to its status where it has one.
    pub fn wait_for(
        &self,
        what: &str,
        limit: Duration,
        args: &[&str],
        right: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait_until(what, limit, || {
            let object = self.json(args).map_err(|error| format!("{error:#}"))?;
            if right(&object) {
                return Ok(object);
            }
            let shown = if object["status"].is_null() { &object } else { &object["status"] };
            Err(shown.to_string())
        })
    }

    /// Waits until all replicas of a Deployment, of its newest revision, are available.
    ///
    /// # Errors
    /// After `limit`, with the Deployment's status.
    pub fn wait_available(&self, name: &str, limit: Duration) -> anyhow::Result<()> {
        let what = format!("Deployment {name} available");
        self.wait_for(&what, limit, &["get", "deployment", name], |deployment| {
            let (wanted, status) = (&deployment["spec"]["replicas"], &deployment["status"]);
            status["observedGeneration"] == deployment["metadata"]["generation"]
                && ["replicas", "updatedReplicas", "availableReplicas"]
                    .iter()
                    .all(|count| status[count] == *wanted)
        })
        .map(drop)
    }

    /// Waits until a pod has ended and gives what it printed.
    ///
    /// # Errors
    /// After `limit`, with the pod's status; when the log cannot be read.
    pub fn log_of_ended(&self, pod: &str, limit: Duration) -> anyhow::Result<String> {
        self.wait_for(&format!("Pod {pod} ended"), limit, &["get", "pod", pod], |pod| {
            matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"))
        })?;
        self.run(&["logs", pod])
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When kubectl refuses it, with its words.
    pub fn apply(&self, manifest: &str) -> anyhow::Result<String> {
        let output = self.with_input(&["apply", "-f", "-"], manifest)?;
        if !output.status.success() {
            bail!("kubectl apply: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}
