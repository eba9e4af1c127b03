//! Runs the few programs the agent needs (`ip`, `ctr`) and turns their failure into an error that
//! carries the command line and what it said.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::error::Error;

/// Runs a program to its end and returns its standard output.
pub(crate) async fn run(program: &Path, args: &[&str], limit: Duration) -> Result<String, Error> {
    let command = format!("{} {}", program.display(), args.join(" "));
    let failed = |output: String| Error::Command { command: command.clone(), output };
    let child = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| failed(source.to_string()))?;
    let output = tokio::time::timeout(limit, child.wait_with_output())
        .await
        .map_err(|_| failed(format!("no end after {} s", limit.as_secs())))?
        .map_err(|source| failed(source.to_string()))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(format!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr).trim())))
}

/// Runs `ip` of iproute2.
pub(crate) async fn ip(args: &[&str]) -> Result<String, Error> {
    run(Path::new("ip"), args, Duration::from_secs(10)).await
}
