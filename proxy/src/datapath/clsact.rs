//! The programs on network devices of kernels without tcx (before 6.6): a clsact qdisc and
//! cls_bpf filters in direct-action mode. A filter has a fixed priority and handle, so that the
//! kernel swaps its program in one step, and a name by which it is known as ours.
//!
//! Filters stay when an agent ends; nothing is pinned for them.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{bpf, links::Attached};
use crate::devices::netlink::{
    Attributes, Body, Message, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE, Socket,
};

/// Message types, attributes and constants of `linux/rtnetlink.h`, `pkt_sched.h`, `pkt_cls.h`.
const RTM_NEWQDISC: u16 = 36;
const RTM_DELQDISC: u16 = 37;
const RTM_GETQDISC: u16 = 38;
const RTM_NEWTFILTER: u16 = 44;
const RTM_DELTFILTER: u16 = 45;
const RTM_GETTFILTER: u16 = 46;
const TCMSG_LEN: usize = 20;
const TCA_KIND: u16 = 1;
const TCA_OPTIONS: u16 = 2;
const TCA_BPF_FD: u16 = 6;
const TCA_BPF_NAME: u16 = 7;
const TCA_BPF_FLAGS: u16 = 8;
const TCA_BPF_ID: u16 = 11;
const TCA_BPF_FLAG_ACT_DIRECT: u32 = 1;
const TC_H_CLSACT: u32 = 0xffff_fff1;
const CLSACT_HANDLE: u32 = 0xffff_0000;
const ETH_P_ALL: u16 = 3;

/// What the name of every filter of ours begins with.
const NAME_PREFIX: &str = "podium_";

/// Handle of every filter of ours; the priority tells the directions apart.
const HANDLE: u32 = 0x706f;

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// Packets that come in, behind the filters of others: the kernel gives those that name no
    /// priority the ones from 49152 downwards.
    Ingress,
    /// Packets that go out, before nearly all others.
    Egress,
}

impl Direction {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Ingress, Self::Egress];

    /// `TC_H_MAKE(TC_H_CLSACT, TC_H_MIN_INGRESS or TC_H_MIN_EGRESS)`.
    const fn parent(self) -> u32 {
        match self {
            Self::Ingress => 0xffff_fff2,
            Self::Egress => 0xffff_fff3,
        }
    }

    const fn priority(self) -> u16 {
        match self {
            Self::Ingress => 60_100,
            Self::Egress => 100,
        }
    }

    /// Its name, also in status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "clsact_ingress",
            Self::Egress => "clsact_egress",
        }
    }
}

/// A filter of ours.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Filter {
    /// Index of the device.
    pub ifindex: u32,
    /// Where on it.
    pub direction: Direction,
    /// Its name: `podium_` and the name of the program.
    pub name: String,
    /// Id of the program it runs.
    pub program_id: u32,
}

/// Puts a program in its place; a filter that is there already is swung over. `found` is what
/// [`filters`] said of the device.
pub fn attach(
    socket: &mut Socket,
    found: &[Filter],
    direction: Direction,
    ifindex: u32,
    program: BorrowedFd<'_>,
    program_name: &str,
) -> io::Result<Attached> {
    let name = format!("{NAME_PREFIX}{program_name}");
    let ours = |filter: &&Filter| filter.ifindex == ifindex && filter.direction == direction;
    let old = found.iter().find(ours);
    if let Some(old) = old
        && old.name == name
        && old.program_id == bpf::program_id(program)?
    {
        return Ok(Attached::Unchanged);
    }
    if old.is_none() {
        let qdisc = Body::new(&tcmsg(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0));
        let qdisc = qdisc.text(TCA_KIND, "clsact");
        match socket.request(RTM_NEWQDISC, NLM_F_CREATE | NLM_F_EXCL, &qdisc) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                // An ingress qdisc has the same handle, and would run filters of both directions
                // on packets that come in.
                if !devices_with_clsact(socket)?.contains(&ifindex) {
                    return Err(io::Error::other(
                        "a qdisc of kind ingress is where clsact belongs",
                    ));
                }
            }
            result => result?,
        }
    }
    let options = Body::new(&[])
        .attribute(TCA_BPF_FD, &program.as_raw_fd().to_ne_bytes())
        .text(TCA_BPF_NAME, &name)
        .attribute(TCA_BPF_FLAGS, &TCA_BPF_FLAG_ACT_DIRECT.to_ne_bytes());
    let filter = Body::new(&tcmsg(ifindex, HANDLE, direction.parent(), info(direction)))
        .text(TCA_KIND, "bpf")
        .nested(TCA_OPTIONS, &options);
    socket.request(RTM_NEWTFILTER, NLM_F_CREATE | NLM_F_REPLACE, &filter)?;
    Ok(if old.is_some() { Attached::InPlace } else { Attached::New })
}

/// Every filter of ours in the network namespace.
pub fn filters(socket: &mut Socket) -> io::Result<Vec<Filter>> {
    let mut found = Vec::new();
    for ifindex in devices_with_clsact(socket)? {
        for direction in Direction::ALL {
            found.extend(
                list(socket, ifindex, direction)?
                    .iter()
                    .filter_map(|message| ours(message, ifindex, direction)),
            );
        }
    }
    Ok(found)
}

/// Takes filters of ours off, and the qdisc of a device with them if no filter of anybody is left
/// on it. What has gone meanwhile is no error.
pub fn detach(socket: &mut Socket, filters: &[Filter]) -> io::Result<()> {
    for filter in filters {
        let header =
            tcmsg(filter.ifindex, HANDLE, filter.direction.parent(), info(filter.direction));
        let body = Body::new(&header).text(TCA_KIND, "bpf");
        gone(socket.request(RTM_DELTFILTER, 0, &body))?;
    }
    let mut devices: Vec<u32> = filters.iter().map(|filter| filter.ifindex).collect();
    devices.dedup();
    for ifindex in devices {
        let mut left = 0;
        for direction in Direction::ALL {
            left += list(socket, ifindex, direction)?.len();
        }
        if left == 0 {
            let body = Body::new(&tcmsg(ifindex, CLSACT_HANDLE, TC_H_CLSACT, 0));
            gone(socket.request(RTM_DELQDISC, 0, &body))?;
        }
    }
    Ok(())
}

fn devices_with_clsact(socket: &mut Socket) -> io::Result<Vec<u32>> {
    let qdiscs = socket.dump(RTM_GETQDISC, &Body::new(&tcmsg(0, 0, 0, 0)))?;
    let mut found: Vec<u32> = (qdiscs.iter())
        .filter(|qdisc| qdisc.attributes(TCMSG_LEN).text(TCA_KIND).as_deref() == Some("clsact"))
        .filter_map(ifindex)
        .collect();
    found.dedup();
    Ok(found)
}

fn list(socket: &mut Socket, ifindex: u32, direction: Direction) -> io::Result<Vec<Message>> {
    let body = Body::new(&tcmsg(ifindex, 0, direction.parent(), 0));
    match socket.dump(RTM_GETTFILTER, &body) {
        // The kernel lists each priority once more as a whole, with no handle.
        Ok(mut messages) => {
            messages.retain(|message| handle(message).is_some_and(|handle| handle != 0));
            Ok(messages)
        }
        Err(error) => gone(Err(error)).map(|()| Vec::new()),
    }
}

fn ours(message: &Message, ifindex: u32, direction: Direction) -> Option<Filter> {
    let options: Attributes<'_> = message.attributes(TCMSG_LEN).nested(TCA_OPTIONS);
    let name = options.text(TCA_BPF_NAME)?;
    let is_ours = name.starts_with(NAME_PREFIX) && handle(message) == Some(HANDLE);
    is_ours.then(|| Filter {
        ifindex,
        direction,
        name,
        program_id: options.u32(TCA_BPF_ID).unwrap_or(0),
    })
}

/// The device, its qdisc or the filter is not there, which was the aim.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENODEV | libc::ENOENT | libc::EINVAL | libc::ENXIO)
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

/// Priority and protocol, as `tcm_info` holds them.
const fn info(direction: Direction) -> u32 {
    (direction.priority() as u32) << 16 | ETH_P_ALL.to_be() as u32
}

/// `struct tcmsg`: family, padding, ifindex, handle, parent, info.
fn tcmsg(ifindex: u32, handle: u32, parent: u32, info: u32) -> [u8; TCMSG_LEN] {
    let mut bytes = [0; TCMSG_LEN];
    for (at, number) in [(4, ifindex), (8, handle), (12, parent), (16, info)] {
        bytes[at..at + 4].copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn ifindex(message: &Message) -> Option<u32> {
    Some(u32::from_ne_bytes(*message.body.get(4..)?.first_chunk()?))
}

fn handle(message: &Message) -> Option<u32> {
    Some(u32::from_ne_bytes(*message.body.get(8..)?.first_chunk()?))
}
