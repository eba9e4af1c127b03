//! Programs under test: started inside a namespace and a cgroup, output in a file, ended by their
//! id and never by a name.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cgroup::Cgroup;
use crate::netns;
use crate::workdir::{Made, Workdir};

/// How long a program gets after SIGTERM.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How much of a log a failure message shows.
const LOG_TAIL_LINES: usize = 30;

/// A command to be run inside a namespace and a cgroup.
#[derive(Debug)]
pub struct Launch {
    command: Command,
    name: String,
}

impl Launch {
    /// A program; `name` is what messages and its log are called.
    pub fn new(name: &str, program: &Path) -> Self {
        let mut command = Command::new(program);
        command.stdin(Stdio::null());
        Self { command, name: name.to_owned() }
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds a flag and its value.
    #[must_use]
    pub fn arg_pair(mut self, flag: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(flag).arg(value);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, key: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(key, value);
        self
    }

    /// Lets it run in a network namespace and, where given, in a cgroup.
    ///
    /// # Errors
    /// When either cannot be opened.
    pub fn inside(mut self, netns: Option<&str>, cgroup: Option<&Cgroup>) -> anyhow::Result<Self> {
        let netns = netns.map(netns::open).transpose()?;
        let procs = cgroup.map(|cgroup| open_procs(cgroup.dir())).transpose()?;
        if netns.is_none() && procs.is_none() {
            return Ok(self);
        }
        let enter = move || {
            if let Some(netns) = &netns {
                setns(netns, CloneFlags::CLONE_NEWNET)?;
            }
            match &procs {
                // Zero stands for the writing process.
                Some(procs) => (&*procs).write_all(b"0"),
                None => Ok(()),
            }
        };
        // SAFETY: between fork and exec only setns(2) and write(2) on files opened before the fork
        // are called; neither allocates nor takes a lock.
        unsafe { self.command.pre_exec(enter) };
        Ok(self)
    }

    /// Starts it, with its output added to its log in the work folder.
    ///
    /// # Errors
    /// When it cannot be started or recorded.
    pub fn spawn(mut self, workdir: &Workdir) -> anyhow::Result<Process> {
        let log = workdir.log(&self.name);
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let again = file.try_clone().with_context(|| format!("open {}", log.display()))?;
        // Its own group: Ctrl-C of the terminal reaches only us, and we end programs in order.
        self.command.stdout(file).stderr(again).process_group(0);
        let child = self.command.spawn().with_context(|| format!("start {}", self.name))?;
        let process = Process { name: self.name, child, log };
        let start = start_ticks(process.pid().as_raw()).unwrap_or_default();
        workdir.record(&Made::Process(process.pid().as_raw(), start))?;
        Ok(process)
    }

    /// Runs it to its end and gives its output.
    ///
    /// # Errors
    /// When it cannot be started or fails, with its words.
    pub fn output(mut self) -> anyhow::Result<String> {
        let output = self.command.output().with_context(|| format!("start {}", self.name))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} ended with {}: {}", self.name, output.status, words.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Starts it with its standard output held for [`Client::finish`].
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_client(mut self) -> anyhow::Result<Client> {
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.command.spawn().with_context(|| format!("start {}", self.name))?;
        Ok(Client { name: self.name, child: Some(child) })
    }
}

fn open_procs(dir: &Path) -> anyhow::Result<File> {
    let path = dir.join("cgroup.procs");
    OpenOptions::new().write(true).open(&path).with_context(|| format!("open {}", path.display()))
}

/// A bounded program of which the output is wanted; killed when dropped unfinished.
#[derive(Debug)]
pub struct Client {
    name: String,
    child: Option<Child>,
}

impl Client {
    /// Waits for its end and gives its output.
    ///
    /// # Errors
    /// When it fails, with its words.
    pub fn finish(mut self) -> anyhow::Result<String> {
        let child = self.child.take().context("client finished twice")?;
        let output = child.wait_with_output().with_context(|| format!("wait for {}", self.name))?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{} ended with {}: {}", self.name, output.status, words.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Ended already is as good.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// A running program; ended when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or_default())
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The end of its log.
    pub fn log_tail(&self) -> String {
        log_tail(&self.log)
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Fails if it has ended, with the end of its log.
    ///
    /// # Errors
    /// When it is not running.
    pub fn check_alive(&mut self) -> anyhow::Result<()> {
        match self.ended() {
            Some(status) => bail!("{} ended with {status}; {}", self.name, self.log_tail()),
            None => Ok(()),
        }
    }

    /// Ends it at once, as a crash would.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        // Not reaped yet, so the id is still its own; one that ended is reaped below.
        let _ended = kill(self.pid(), Signal::SIGKILL);
        self.child.wait().with_context(|| format!("wait for {}", self.name))?;
        Ok(())
    }

    /// Waits until it ends by itself.
    ///
    /// # Errors
    /// When it fails or does not end in time, with the end of its log.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while Instant::now() < deadline {
            match self.ended() {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}; {}", self.name, self.log_tail()),
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
        bail!("{} still runs after {} s; {}", self.name, limit.as_secs(), self.log_tail())
    }

    /// Asks it to end, and ends it when it does not.
    pub fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let _ended = kill(self.pid(), Signal::SIGTERM);
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        eprintln!("{} did not end within {} s of SIGTERM", self.name, END_LIMIT.as_secs());
        if let Err(error) = self.kill() {
            eprintln!("{error:#}");
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The end of a log.
pub(crate) fn log_tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let tail = &lines[lines.len().saturating_sub(LOG_TAIL_LINES)..];
    format!("the end of {}:\n{}", log.display(), tail.join("\n"))
}

/// Start time of a process in clock ticks since boot (field 22 of proc_pid_stat(5)).
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    start_ticks_in(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

fn start_ticks_in(stat: &str) -> Option<u64> {
    // The name in parentheses may hold blanks and parentheses itself.
    let after_name = &stat[stat.rfind(')')? + 1..];
    after_name.split_whitespace().nth(19)?.parse().ok()
}

/// Command line of a process.
pub(crate) fn command_line(pid: i32) -> Vec<OsString> {
    use std::os::unix::ffi::OsStringExt;
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty())
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_odd_names() {
        let stat = "12 (a) b (c) S 1 12 12 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1";
        assert_eq!(start_ticks_in(stat), Some(98765));
        assert!(start_ticks(1).is_some());
    }
}
