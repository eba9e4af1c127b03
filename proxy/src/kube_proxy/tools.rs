//! The commands that read and change netfilter's rules. Other programs write rules too, in two
//! formats that change with the kernel; the tools know them.

use std::{
    io::{self, Write as _},
    process::{Command, Stdio},
};

/// Why a tool did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not installed.
    #[error("{tool} is not installed")]
    Missing {
        /// Its name.
        tool: String,
    },
    /// It could not be run.
    #[error("cannot run {tool}")]
    Run {
        /// Its name.
        tool: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It failed.
    #[error("{tool} failed: {said}")]
    Failed {
        /// Its name and arguments.
        tool: String,
        /// What it wrote to stderr.
        said: String,
    },
}

/// Runs a tool on some input, and returns what it prints.
pub fn run(tool: &str, args: &[&str], input: &str) -> Result<String, Error> {
    let failed_to = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::Missing { tool: tool.to_owned() },
        _ => Error::Run { tool: tool.to_owned(), source },
    };
    let mut child = Command::new(tool)
        .args(args)
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed_to)?;
    // All of it is taken before the tool prints: those with input print nothing.
    let written = child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().map_err(failed_to)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; ");
        let tool = [&[tool], args].concat().join(" ");
        return Err(Error::Failed { tool, said });
    }
    written.map_err(failed_to)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
