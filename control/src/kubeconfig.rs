//! `podium kubeconfig`: credentials for another client, from the CA in the server's data directory.

use std::path::PathBuf;

use anyhow::Context as _;
use podium_server::{Authority, ClientRequest};

use crate::Unusable;

#[derive(clap::Args)]
pub struct Arguments {
    /// Data directory of the server, where its CA lies.
    #[arg(long, default_value = "/var/lib/podium/server")]
    data_dir: PathBuf,
    /// User name, such as system:node:worker-1 for a node's agent.
    #[arg(long)]
    user: String,
    /// Group of the user, such as system:nodes or system:masters; repeatable.
    #[arg(long)]
    group: Vec<String>,
    /// URL of the API server as this client reaches it.
    #[arg(long, value_name = "URL")]
    server: String,
    /// File to write, readable by its owner only; standard output by default.
    #[arg(long, short)]
    output: Option<PathBuf>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    // Opening makes a CA where none is: a kubeconfig from that one would fit no server.
    let directory = arguments.data_dir.join("pki");
    if !directory.is_dir() {
        return Err(Unusable(format!(
            "--data-dir: {} does not exist: start `podium server` with this data directory first",
            directory.display()
        ))
        .into());
    }
    let authority = Authority::open(&arguments.data_dir).context("opening the server's CA")?;
    let request = ClientRequest { user: arguments.user.clone(), groups: arguments.group.clone() };
    match &arguments.output {
        Some(path) => authority.write_kubeconfig(&request, &arguments.server, path)?,
        None => print!("{}", authority.kubeconfig(&request, &arguments.server)?),
    }
    Ok(())
}
