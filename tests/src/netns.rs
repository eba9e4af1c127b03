//! Named network namespaces. Programs enter only the network namespace, as `nsenter --net=` does:
//! `ip netns exec` would remount /sys and hide the cgroup tree from them.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, bail};

use crate::workdir::{Made, Workdir};

/// A network namespace, deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Makes the namespace `<prefix>-<role>` with its loopback up.
    ///
    /// # Errors
    /// When somebody else has a namespace of this name, or `ip` fails, with its words.
    pub fn create(workdir: &Workdir, role: &str) -> anyhow::Result<Self> {
        let name = format!("{}-{role}", workdir.prefix());
        // Before it is recorded: what is recorded is ours to delete.
        if path(&name).exists() {
            bail!(
                "the network namespace {name} exists already: another checkout runs the same, or \
                 left it behind; end that one, or remove it with `ip netns delete {name}`"
            );
        }
        workdir.record(&Made::Netns(name.clone()))?;
        ip(&["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip(&["link", "set", "lo", "up"])?;
        Ok(netns)
    }

    /// Its name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// When `ip` fails, with its words.
    pub fn ip(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut all = vec!["-n", &self.name];
        all.extend(args);
        ip(&all)
    }

    /// Opens the namespace, for [`nix::sched::setns`].
    ///
    /// # Errors
    /// When it is gone.
    pub fn open(&self) -> anyhow::Result<File> {
        open(&self.name)
    }

    /// Runs `work` on a thread of its own inside the namespace.
    ///
    /// # Errors
    /// When the namespace cannot be entered or the thread panics.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = self.open()?;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?;
                Ok::<T, nix::Error>(work())
            });
            match thread.join() {
                Ok(result) => result.with_context(|| format!("enter namespace {}", self.name)),
                Err(_) => bail!("work inside namespace {} panicked", self.name),
            }
        })
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(error) = delete(&self.name) {
            eprintln!("cleaning up: {error:#}");
        }
    }
}

/// Opens a namespace by name.
///
/// # Errors
/// When there is none.
pub fn open(name: &str) -> anyhow::Result<File> {
    File::open(path(name)).with_context(|| format!("open network namespace {name}"))
}

/// Deletes a namespace; one that is gone already is fine.
///
/// # Errors
/// When `ip` fails, with its words.
pub fn delete(name: &str) -> anyhow::Result<()> {
    if !path(name).exists() {
        return Ok(());
    }
    ip(&["netns", "delete", name]).map(drop)
}

fn path(name: &str) -> PathBuf {
    PathBuf::from("/run/netns").join(name)
}

/// Runs `ip` and gives its output.
///
/// # Errors
/// When it fails, with its words.
pub fn ip(args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new("ip").args(args).output().context("run ip (package iproute2)")?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("ip {}: {}", args.join(" "), words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
