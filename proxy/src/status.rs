//! What the kernel holds, for people and programs. Read from pinned state alone: it works while no
//! agent runs.

mod devices;

use std::{
    collections::BTreeMap,
    fmt::{self, Write as _},
};

use podium_proxy_ebpf::{Endpoint, ServiceCounters};
use serde::Serialize;

use crate::{
    datapath::{Datapath, Error, kernel::KernelDatapath, links, pins::PinDir},
    devices::{attached, skipped},
    model::{Reach, protocol_text},
    plan::{
        Limit,
        held::{Held, HeldPort},
        ranges,
    },
    trace::kind_text,
};
pub use devices::{DeviceStatus, SkippedDevice};

/// Everything `podium-proxy status` shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// The programs in their places.
    pub programs: Vec<ProgramStatus>,
    /// The programs on network devices.
    pub devices: Vec<DeviceStatus>,
    /// Network devices that can get none.
    pub skipped_devices: Vec<SkippedDevice>,
    /// How full the maps are that hold services.
    pub maps: Vec<MapStatus>,
    /// Every service port.
    pub services: Vec<ServiceStatus>,
}

/// One map.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MapStatus {
    /// Its name.
    pub map: &'static str,
    /// Elements in use.
    pub used: u32,
    /// Elements there may be.
    pub size: u32,
    /// The flag that says how many.
    pub flag: &'static str,
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
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    /// Where it is reached.
    pub addresses: Vec<AddressStatus>,
    /// Where that leads.
    pub endpoints: Vec<String>,
    /// The endpoints of this node, where only they count.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_endpoints: Option<Vec<String>>,
    /// Who may use the restricted addresses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_ranges: Vec<String>,
    /// Slots of its table for the consistent choice; 0: it has none.
    pub maglev_slots: u32,
    /// How long a client keeps its endpoint; 0: no affinity.
    pub affinity_seconds: u32,
    /// Connections, and datagrams of unconnected sockets, so far.
    pub hits: u64,
    /// Packets translated, both directions.
    pub packets: u64,
    /// Bytes of these.
    pub bytes: u64,
}

/// One address of a service port.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressStatus {
    /// The address and port.
    pub at: String,
    /// What it is.
    pub kind: &'static str,
    /// Whether this node's sockets and pods get its endpoints only.
    pub internal_local: bool,
    /// Whether other machines do.
    pub external_local: bool,
    /// Whether only some sources may come.
    pub restricted: bool,
}

impl fmt::Display for AddressStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.kind)?;
        for (set, word) in [
            (self.internal_local, "internal-local"),
            (self.external_local, "external-local"),
            (self.restricted, "restricted"),
        ] {
            if set {
                write!(f, " {word}")?;
            }
        }
        Ok(())
    }
}

/// Reads the pinned state.
///
/// # Errors
/// If there is none or it cannot be read.
pub fn read(pins: &PinDir) -> Result<Status, Error> {
    let datapath = KernelDatapath::open_current(pins)?;
    let held = Held::rebuild(&datapath.snapshot()?, datapath.limits());
    let ids: Vec<u32> = held.ports.values().map(|port| port.id).collect();
    let counters = datapath.counters(&ids)?;
    let programs = (links::attached(&pins.links()).into_iter())
        .map(|(hook, program_id, attached)| ProgramStatus { hook: hook.name, program_id, attached })
        .collect();
    let devices = attached(&pins.links()).map_err(|error| Error::Devices(Box::new(error)))?;
    let devices = devices.into_iter().map(DeviceStatus::from).collect();
    let skipped = skipped().map_err(|error| Error::Devices(Box::new(error)))?;
    let skipped_devices = skipped.into_iter().map(SkippedDevice::from).collect();
    Ok(Status { skipped_devices, ..Status::new(&held, &counters, programs, devices) })
}

impl Status {
    /// From what is held and what was counted.
    pub fn new(
        held: &Held,
        counters: &BTreeMap<u32, ServiceCounters>,
        programs: Vec<ProgramStatus>,
        devices: Vec<DeviceStatus>,
    ) -> Self {
        let services = (held.ports.values())
            .map(|port| {
                let counted = counters.get(&port.id).copied().unwrap_or_default();
                ServiceStatus::new(port, counted)
            })
            .collect();
        let services_used = u32::try_from(held.entries.len()).unwrap_or(u32::MAX);
        let maps = [
            (Limit::Services, services_used, held.limits.services),
            (Limit::Endpoints, held.endpoints_used(), held.limits.endpoints),
            (Limit::Maglev, held.maglev_used(), held.limits.maglev),
            (Limit::SourceRanges, held.source_ranges, held.limits.source_ranges),
        ]
        .map(|(limit, used, size)| MapStatus {
            map: limit.map(),
            used,
            size,
            flag: limit.flag(),
        });
        let skipped_devices = Vec::new();
        Self { programs, devices, skipped_devices, maps: maps.into(), services }
    }
}

impl ServiceStatus {
    fn new(port: &HeldPort, counted: ServiceCounters) -> Self {
        let shown =
            |list: &[Endpoint]| list.iter().map(|one| one.at().socket_addr().to_string()).collect();
        let content = &port.content;
        let only_local = content
            .addresses
            .values()
            .any(|frontend| frontend.internal == Reach::Node || frontend.external == Reach::Node);
        let ranges = port.source_ranges.iter().filter_map(ranges::from_abi);
        Self {
            namespace: content.name.service.namespace.clone(),
            name: content.name.service.name.clone(),
            port: content.name.port.clone(),
            protocol: protocol_text(content.name.protocol),
            addresses: (content.addresses.iter())
                .map(|(at, frontend)| AddressStatus {
                    at: at.socket_addr().to_string(),
                    kind: kind_text(frontend.kind),
                    internal_local: frontend.internal == Reach::Node,
                    external_local: frontend.external == Reach::Node,
                    restricted: frontend.restricted,
                })
                .collect(),
            endpoints: shown(&content.endpoints),
            local_endpoints: only_local.then(|| shown(&content.local)),
            source_ranges: ranges.map(|range| range.to_string()).collect(),
            maglev_slots: port.maglev.len,
            affinity_seconds: content.affinity_secs,
            hits: counted.connections,
            packets: counted.packets,
            bytes: counted.bytes,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attached = self.programs.iter().filter(|program| program.attached).count();
        writeln!(f, "programs: {attached} of {} attached", links::HOOKS.len())?;
        devices::write_line(f, &self.devices)?;
        for skipped in &self.skipped_devices {
            writeln!(f, "skipped: {skipped}")?;
        }
        for MapStatus { map, used, size, flag } in &self.maps {
            writeln!(f, "{map} {used}/{size} ({flag})")?;
        }
        let heads = ["SERVICE", "PORT", "ADDRESSES", "AFFINITY", "HITS", "PACKETS", "BYTES"];
        let mut rows: Vec<Vec<String>> =
            vec![heads.into_iter().chain(["ENDPOINTS"]).map(str::to_owned).collect()];
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
            if !service.source_ranges.is_empty() {
                let _ = write!(endpoints, " (restricted to {})", service.source_ranges.join(","));
            }
            let addresses: Vec<String> =
                service.addresses.iter().map(ToString::to_string).collect();
            rows.push(vec![
                format!("{}/{}", service.namespace, service.name),
                format!("{}/{}", service.port, service.protocol).trim_start_matches('/').to_owned(),
                addresses.join(", "),
                affinity,
                service.hits.to_string(),
                service.packets.to_string(),
                service.bytes.to_string(),
                endpoints,
            ]);
        }
        write_table(f, &rows)
    }
}

/// Columns as wide as their widest cell; the last one ends the line.
fn write_table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let mut widths = vec![0; rows.first().map_or(0, Vec::len)];
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.len().max(*width);
        }
    }
    for row in rows {
        let Some((last, cells)) = row.split_last() else {
            continue;
        };
        for (width, cell) in widths.iter().zip(cells) {
            write!(f, "{cell:width$}  ")?;
        }
        writeln!(f, "{last}")?;
    }
    Ok(())
}
