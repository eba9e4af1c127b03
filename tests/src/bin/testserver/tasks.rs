//! What containers do besides serving: the sandbox's pause, the training job, the greeting.

use std::mem::MaybeUninit;
use std::process::ExitCode;
use std::time::Duration;

use crate::serve;

/// The signals that end a container, and the one that tells of a child's end.
const SIGNALS: [libc::c_int; 3] = [libc::SIGTERM, libc::SIGINT, libc::SIGCHLD];

fn signal_set() -> libc::sigset_t {
    let mut set = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: sigemptyset fills the set it is given.
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    for signal in SIGNALS {
        // SAFETY: the set was filled above, and the signal numbers are valid.
        unsafe { libc::sigaddset(set.as_mut_ptr(), signal) };
    }
    // SAFETY: filled by sigemptyset above.
    unsafe { set.assume_init() }
}

/// Holds the signals back for [`wait_for_end_signal`]; to be called before any thread is started.
/// The first process of a container has no default actions: unhandled signals would be lost.
pub fn block_signals() {
    let set = signal_set();
    // SAFETY: the set is initialised; no old mask is asked for.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
}

/// Waits for SIGTERM or SIGINT, and collects children that end meanwhile.
pub fn wait_for_end_signal() {
    let set = signal_set();
    loop {
        let mut signal = 0;
        // SAFETY: the set is initialised and `signal` is writable.
        let failed = unsafe { libc::sigwait(&set, &mut signal) };
        if failed == 0 && signal != libc::SIGCHLD {
            return;
        }
        // SAFETY: no status is asked for.
        while unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) } > 0 {}
    }
}

/// Holds the namespaces of a pod.
pub fn pause() -> ExitCode {
    block_signals();
    wait_for_end_signal();
    ExitCode::SUCCESS
}

/// What an image called hello-world says; it then serves, because the user's Deployment of it has
/// replicas that stay and a container port 80.
pub fn hello() -> ExitCode {
    println!("Hello from Podium!");
    let server = serve::Server { name: "hello-world".to_owned(), model: None };
    serve::run(80, server, 0)
}

/// Stands in for the interpreter of the training image: `python train.py`.
pub fn python(args: &[String]) -> ExitCode {
    match args.first().map(String::as_str) {
        Some("train.py") => train(3),
        Some(script) => {
            eprintln!("python: can't open file '{script}': [Errno 2] No such file or directory");
            ExitCode::from(2)
        }
        None => {
            eprintln!("python: this image holds train.py only");
            ExitCode::from(2)
        }
    }
}

/// A real, if small, training: gradient descent on a line through fixed points.
pub fn train(epochs: u32) -> ExitCode {
    let points: Vec<(f64, f64)> =
        (0..100).map(|i| f64::from(i) / 100.0).map(|x| (x, 3.0 * x + 2.0)).collect();
    let (mut slope, mut intercept) = (0.0, 0.0);
    for epoch in 1..=epochs {
        for _ in 0..5 {
            for (x, y) in &points {
                let error = slope * x + intercept - y;
                slope -= 0.01 * error * x;
                intercept -= 0.01 * error;
            }
        }
        let loss: f64 = points.iter().map(|(x, y)| (slope * x + intercept - y).powi(2)).sum();
        println!("epoch {epoch}/{epochs}: loss {loss:.6}, y = {slope:.3}x + {intercept:.3}");
    }
    println!("training finished");
    ExitCode::SUCCESS
}

/// Sleeps; SIGTERM ends it early.
pub fn sleep(seconds: Option<&String>) -> Result<ExitCode, String> {
    let text = seconds.ok_or("a number of seconds is missing")?;
    let seconds = text.parse::<u64>().map_err(|_| format!("{text:?} is no number of seconds"))?;
    block_signals();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(seconds));
        std::process::exit(0);
    });
    wait_for_end_signal();
    Ok(ExitCode::from(143))
}

/// Prints variables (`env:NAME`) and files (`file:PATH`), one a line, as a container sees them.
pub fn tell(items: &[String]) -> Result<ExitCode, String> {
    for item in items {
        let value = match item.split_once(':') {
            Some(("env", name)) => std::env::var(name).map_err(|error| error.to_string()),
            Some(("file", path)) => std::fs::read_to_string(path).map_err(|e| e.to_string()),
            _ => return Err(format!("{item:?} is neither env:NAME nor file:PATH")),
        };
        match value {
            Ok(value) => println!("{item}={}", value.trim_end()),
            Err(error) => println!("{item}: {error}"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
