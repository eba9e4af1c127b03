//! What the kernel holds, for people and programs. Read from pinned state alone: it works while no
//! agent runs.

use std::fmt::{self, Write as _};

use podium_proxy_ebpf::Endpoint;
use serde::Serialize;

use crate::{
    datapath::{Datapath, Error, kernel::KernelDatapath, links, pins::PinDir},
    model::{Reach, protocol_text},
    plan::held::Held,
};

/// Everything `podium-proxy status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The programs in their places.
    pub programs: Vec<ProgramStatus>,
    /// Entries of the services map in use.
    pub services_used: usize,
    /// Its size.
    pub services_max: u32,
    /// Elements of the endpoints array in use.
    pub endpoints_used: u32,
    /// Its size.
    pub endpoints_max: u32,
    /// Every service port.
    pub services: Vec<ServiceStatus>,
}

/// One attached program.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProgramStatus {
    /// Its hook.
    pub hook: &'static str,
    /// Its id, for bpftool.
    pub program_id: u32,
    /// Whether its cgroup still exists.
    pub attached: bool,
}

/// One service port in one family.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// Namespace of the Service.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Name of the port.
    pub port: String,
    /// `TCP` or `UDP`.
    pub protocol: &'static str,
    /// Where it is reached.
    pub addresses: Vec<String>,
    /// Where that leads.
    pub endpoints: Vec<String>,
    /// The endpoints of this node, where only they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_endpoints: Option<Vec<String>>,
    /// How long a client keeps its endpoint; 0: no affinity.
    pub affinity_seconds: u32,
    /// Connections, and datagrams of unconnected sockets, so far.
    pub hits: u64,
}

/// Reads the pinned state.
///
/// # Errors
/// If there is none or it cannot be read.
pub fn read(pins: &PinDir) -> Result<Status, Error> {
    let datapath = KernelDatapath::open_current(pins)?;
    let held = Held::rebuild(&datapath.snapshot()?, datapath.limits());
    let ids: Vec<u32> = held.ports.values().map(|port| port.id).collect();
    let hits = datapath.counters(&ids)?;
    let shown =
        |list: &[Endpoint]| list.iter().map(|one| one.at().socket_addr().to_string()).collect();
    let services = (held.ports.iter())
        .map(|(name, port)| {
            let content = &port.content;
            let only_local =
                content.addresses.values().any(|frontend| frontend.internal == Reach::Node);
            ServiceStatus {
                namespace: name.service.namespace.clone(),
                name: name.service.name.clone(),
                port: name.port.clone(),
                protocol: protocol_text(name.protocol),
                addresses: (content.addresses.keys())
                    .map(|at| at.socket_addr().to_string())
                    .collect(),
                endpoints: shown(&content.endpoints),
                local_endpoints: only_local.then(|| shown(&content.local)),
                affinity_seconds: content.affinity_secs,
                hits: hits.get(&port.id).map_or(0, |count| count.connections),
            }
        })
        .collect();
    let programs = (links::attached(&pins.links()).into_iter())
        .map(|(hook, program_id, attached)| ProgramStatus { hook: hook.name, program_id, attached })
        .collect();
    Ok(Status {
        programs,
        services_used: held.entries.len(),
        services_max: held.limits.services,
        endpoints_used: held.endpoints_used(),
        endpoints_max: held.limits.endpoints,
        services,
    })
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attached = self.programs.iter().filter(|program| program.attached).count();
        writeln!(
            f,
            "programs: {attached} of {} attached; services map {}/{}; endpoints {}/{}",
            links::HOOKS.len(),
            self.services_used,
            self.services_max,
            self.endpoints_used,
            self.endpoints_max
        )?;
        let mut rows = vec![
            ["SERVICE", "PORT", "ADDRESSES", "AFFINITY", "HITS", "ENDPOINTS"].map(str::to_owned),
        ];
        for service in &self.services {
            let affinity = match service.affinity_seconds {
                0 => "-".to_owned(),
                secs => format!("{secs}s"),
            };
            let mut endpoints = match service.endpoints.as_slice() {
                [] => "none: refused".to_owned(),
                some => some.join(","),
            };
            if let Some(local) = &service.local_endpoints {
                let _ = write!(endpoints, " (this node only: {})", local.join(","));
            }
            rows.push([
                format!("{}/{}", service.namespace, service.name),
                format!("{}/{}", service.port, service.protocol).trim_start_matches('/').to_owned(),
                service.addresses.join(","),
                affinity,
                service.hits.to_string(),
                endpoints,
            ]);
        }
        write_table(f, &rows)
    }
}

fn write_table(f: &mut fmt::Formatter<'_>, rows: &[[String; 6]]) -> fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..5).map(width).collect();
    for row in rows {
        for (cell, width) in row.iter().zip(&widths) {
            write!(f, "{cell:width$}  ")?;
        }
        writeln!(f, "{}", row[5])?;
    }
    Ok(())
}
