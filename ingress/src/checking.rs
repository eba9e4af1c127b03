//! The command line of `podium-ingress check`.

use crate::{client, namespaced};
use anyhow::{Context, bail};
use clap::{ArgGroup, Args, ValueEnum};
use podium_ingress::check::read;
use podium_ingress::check::{Check, Input, Report};
use podium_ingress::{ClassSelection, ObjectKey};
use std::path::PathBuf;
use std::process::ExitCode;

/// Objects that are named may name others in turn: options name ConfigMaps with headers.
const ROUNDS: usize = 3;

#[derive(Clone, Copy, ValueEnum)]
enum Output {
    Text,
    Json,
}

#[derive(Args)]
#[command(group(ArgGroup::new("input").args(["files", "cluster"]).required(true)))]
pub struct CheckArgs {
    /// Manifests in YAML or JSON: files, folders, or - for standard input.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check the objects of a cluster, as kubectl would find it.
    #[arg(long)]
    cluster: bool,
    /// Kubeconfig of the cluster.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    kubeconfig: Option<PathBuf>,
    /// ConfigMap with options of the controller: its NAMESPACE/NAME, or a file that holds it.
    #[arg(long, value_name = "NAMESPACE/NAME|FILE")]
    configmap: Option<String>,
    /// IngressClasses with this spec.controller are ours; repeat for more.
    #[arg(long, value_name = "NAME", default_values = ["k8s.io/ingress-nginx", "podium.dev/ingress"])]
    controller_class: Vec<String>,
    /// Ingresses of this class are ours; repeat for more.
    #[arg(long, value_name = "NAME", default_values = ["nginx", "podium"])]
    ingress_class: Vec<String>,
    /// Take Ingresses that name no class.
    #[arg(long)]
    watch_ingress_without_class: bool,
    /// For people or for programs.
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Runs the command.
pub fn check(args: CheckArgs) -> ExitCode {
    let output = args.output;
    let report = match report(args) {
        Ok(report) => report,
        Err(error) => {
            eprintln!("podium-ingress: {error:#}");
            return ExitCode::from(2);
        }
    };
    match output {
        Output::Text => print!("{}", report.text()),
        Output::Json => match serde_json::to_string_pretty(&report) {
            Ok(json) => println!("{json}"),
            Err(error) => {
                eprintln!("podium-ingress: writing JSON: {error}");
                return ExitCode::from(2);
            }
        },
    }
    if report.is_fine() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn report(args: CheckArgs) -> anyhow::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runtime")?;
    let client = match args.cluster {
        true => Some(runtime.block_on(client(args.kubeconfig.clone()))?),
        false => None,
    };
    let mut objects = match &client {
        Some(client) => runtime.block_on(read::cluster(client))?,
        None => read::files(&args.files)?,
    };
    let config_map = match args.configmap {
        Some(named) => Some(config_map(&named, &mut objects)?),
        None => None,
    };
    let mut check = Check::new(Input {
        objects,
        classes: ClassSelection {
            controllers: args.controller_class,
            names: args.ingress_class,
            without_class: args.watch_ingress_without_class,
            ..ClassSelection::default()
        },
        config_map,
        complete: args.cluster,
    })
    .context("preparing the check")?;
    for _ in 0..ROUNDS {
        let Some(client) = &client else {
            break;
        };
        let missing = check.missing();
        let found = runtime.block_on(read::named(client, missing))?;
        if found.is_empty() {
            break;
        }
        check.add(found);
    }
    Ok(check.report())
}

/// The key of the ConfigMap with options; one in a file joins the other objects.
fn config_map(
    named: &str,
    objects: &mut Vec<podium_ingress::check::Object>,
) -> anyhow::Result<ObjectKey> {
    let path = PathBuf::from(named);
    if !path.is_file() {
        let (namespace, name) = namespaced(named)
            .map_err(|_| anyhow::anyhow!("--configmap {named}: no file, and not NAMESPACE/NAME"))?;
        return Ok(ObjectKey::new(namespace, name));
    }
    let found = read::files(&[path])?;
    let key = found.iter().find_map(podium_ingress::check::Object::config_map_key);
    objects.extend(found);
    match key {
        Some(key) => Ok(key),
        None => bail!("--configmap {named}: there is no ConfigMap in it"),
    }
}
