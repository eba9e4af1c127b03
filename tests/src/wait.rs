//! Waiting for something to become true, with progress on stderr and an error that tells what was
//! last seen.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

const POLL_PERIOD: Duration = Duration::from_millis(100);
const PROGRESS_PERIOD: Duration = Duration::from_secs(5);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends every wait of this process with an error, so that it can clean up. Safe in a signal handler.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Calls `probe` until it gives a value; its error text says what is still missing.
///
/// # Errors
/// After `limit`, with what was waited for and the probe's last words; after [`interrupt`].
pub fn wait_until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let outcome = poll(what, limit, || match probe() {
        Err(_) if interrupted() => Ok(None),
        other => other.map(Some),
    })?;
    outcome.with_context(|| format!("{what}: interrupted"))
}

/// As [`wait_until`], for cleaning up, which goes on after [`interrupt`].
pub(crate) fn wait_uninterrupted<T>(
    what: &str,
    limit: Duration,
    probe: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    poll(what, limit, probe)
}

fn poll<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let started = Instant::now();
    let mut next_progress = PROGRESS_PERIOD;
    loop {
        let missing = match probe() {
            Ok(value) => return Ok(value),
            Err(missing) => missing,
        };
        let elapsed = started.elapsed();
        if elapsed > limit {
            bail!("{what}: not within {} s; last seen: {missing}", limit.as_secs());
        }
        if elapsed > next_progress {
            eprintln!("    … {what}, {} s so far: {missing}", elapsed.as_secs());
            next_progress += PROGRESS_PERIOD;
        }
        std::thread::sleep(POLL_PERIOD);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_or_the_last_words() {
        let mut calls = 0;
        let value = wait_until("three calls", Duration::from_secs(10), || {
            calls += 1;
            if calls == 3 { Ok(calls) } else { Err(format!("{calls} calls")) }
        });
        assert_eq!(value.unwrap(), 3);
        let error = wait_until("never", Duration::ZERO, || Err::<(), _>("still dark".to_owned()))
            .unwrap_err();
        assert_eq!(error.to_string(), "never: not within 0 s; last seen: still dark");
    }
}
