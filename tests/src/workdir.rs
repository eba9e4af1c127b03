//! The folder of one demo or one test, and the record of what it made outside of that folder.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

/// Name of the record inside the folder.
const RECORD: &str = "record";

/// One thing made on the machine. Recorded before it is made, so that nothing can be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// A process: its id and its start time in clock ticks, which together are never reused.
    Process(i32, u64),
    /// A named network namespace.
    Netns(String),
    /// A cgroup path below the root of every hierarchy.
    Cgroup(String),
    /// Data folder of a node agent, which holds a private containerd.
    NodeData(PathBuf),
}

impl Made {
    fn to_line(&self) -> String {
        match self {
            Self::Process(pid, start) => format!("process {pid} {start}"),
            Self::Netns(name) => format!("netns {name}"),
            Self::Cgroup(path) => format!("cgroup {path}"),
            Self::NodeData(path) => format!("node-data {}", path.display()),
        }
    }

    fn parse(line: &str) -> Option<Self> {
        let (kind, rest) = line.split_once(' ')?;
        match kind {
            "process" => {
                let (pid, start) = rest.split_once(' ')?;
                Some(Self::Process(pid.parse().ok()?, start.parse().ok()?))
            }
            "netns" => Some(Self::Netns(rest.to_owned())),
            "cgroup" => Some(Self::Cgroup(rest.to_owned())),
            "node-data" => Some(Self::NodeData(PathBuf::from(rest))),
            _ => None,
        }
    }
}

/// A folder with a record, and the prefix of every name that is visible outside of it.
#[derive(Clone, Debug)]
pub struct Workdir {
    path: PathBuf,
    prefix: String,
}

impl Workdir {
    /// Makes the folder anew; what an earlier run left there is taken down first.
    ///
    /// # Errors
    /// When the leftovers cannot be removed or the folder cannot be made.
    pub fn create(path: &Path, prefix: &str) -> anyhow::Result<Self> {
        ensure!(path.is_absolute(), "work folder {} is not absolute", path.display());
        if path.exists() {
            crate::down::down(path)?;
        }
        fs::create_dir_all(path).with_context(|| format!("create {}", path.display()))?;
        Ok(Self { path: path.to_path_buf(), prefix: prefix.to_owned() })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Prefix of network namespaces and cgroups.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Where the output of the program of this name goes.
    pub fn log(&self, name: &str) -> PathBuf {
        self.path.join(format!("{name}.log"))
    }

    /// Writes down one thing about to be made.
    ///
    /// # Errors
    /// When the record cannot be written.
    pub fn record(&self, made: &Made) -> anyhow::Result<()> {
        let path = self.path.join(RECORD);
        let mut file = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        writeln!(file, "{}", made.to_line()).with_context(|| format!("write {}", path.display()))
    }
}

/// What the record in `dir` lists, in the order it was made; empty where there is none.
pub fn recorded(dir: &Path) -> Vec<Made> {
    let text = fs::read_to_string(dir.join(RECORD)).unwrap_or_default();
    text.lines().filter_map(Made::parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_lines_come_back() {
        for made in [
            Made::Process(12, 3456),
            Made::Netns("podium-test-a".to_owned()),
            Made::Cgroup("/podium/a b".to_owned()),
            Made::NodeData(PathBuf::from("/x/y z")),
        ] {
            assert_eq!(Made::parse(&made.to_line()), Some(made));
        }
        assert_eq!(Made::parse("half"), None);
    }
}
