//! A bare API server for trying things out: `serve DATA_DIR [ADDRESS]`. No controllers, no nodes.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use podium_server::{ApiServer, Config};
use podium_store::{Embedded, Retention};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut arguments = std::env::args().skip(1);
    let directory = PathBuf::from(arguments.next().context("usage: serve DATA_DIR [ADDRESS]")?);
    let mut config = Config::new(&directory);
    config.bind_address = arguments.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    std::fs::create_dir_all(&directory)?;
    let store = Embedded::open(&directory.join("store.redb"), Retention::default())?;
    let server = ApiServer::start(config, Arc::new(store)).await?;
    println!("{}", server.admin_kubeconfig_path().display());
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
