//! `podium`: the control plane and the node agent in one binary. Only the command line and the
//! wiring are here; what the parts do is in the crates beside this one.

mod agent;
mod kubeconfig;
mod server;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// A small Kubernetes control plane and node agent.
#[derive(Parser)]
#[command(name = "podium", version, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the API server, its store, the controllers and the scheduler.
    Server(server::Arguments),
    /// Run the agent of this node: its pods, their network, their status.
    Agent(agent::Arguments),
    /// Issue a client certificate from the server's CA and write a kubeconfig with it.
    Kubeconfig(kubeconfig::Arguments),
}

/// Exit code for a command line or a machine that cannot work; clap uses it for usage errors too.
const EXIT_UNUSABLE: u8 = 2;

/// Marks an error as the machine's or the command line's fault, found before anything was started.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unusable(String);

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider was installed already");
    }
    match run(arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("podium: {error:#}");
            let unusable = error.downcast_ref::<Unusable>().is_some();
            if unusable { ExitCode::from(EXIT_UNUSABLE) } else { ExitCode::FAILURE }
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(async {
        match command {
            Command::Server(arguments) => server::run(arguments, ended_by_signal()?).await,
            Command::Agent(arguments) => agent::run(arguments, ended_by_signal()?).await,
            Command::Kubeconfig(arguments) => kubeconfig::run(&arguments),
        }
    });
    // A task stuck in a blocking call must not hold up the end of the process.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// A token that SIGTERM or SIGINT cancels.
fn ended_by_signal() -> anyhow::Result<CancellationToken> {
    let shutdown = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("SIGTERM: shutting down"),
            _ = interrupt.recv() => tracing::info!("SIGINT: shutting down"),
        }
        token.cancel();
    });
    Ok(shutdown)
}
