//! The kernel programs: one file per hook, one core, one place where a verdict is made.
//!
//! For sockets [`forward`] decides, for packets [`path`]; a hook only names what it is and what to do
//! with the answer. A refusal becomes an errno, a reset or a drop in [`verdict`] and nowhere else, so
//! that no hook can answer with the EPERM the kernel would make of a bare 0.

#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        clippy::cast_possible_truncation,
        reason = "sizes of headers and fields of the kernel's that are wider than what they hold; a \
                  checked conversion would bring its panic into the programs"
    )
)]

#[cfg(target_arch = "bpf")]
mod classifier;
#[cfg(target_arch = "bpf")]
mod connect;
#[cfg(target_arch = "bpf")]
mod direct_return;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod getpeername;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod path;
#[cfg(target_arch = "bpf")]
mod ports;
#[cfg(target_arch = "bpf")]
mod recvmsg;
#[cfg(target_arch = "bpf")]
mod refuse;
#[cfg(target_arch = "bpf")]
mod report;
#[cfg(target_arch = "bpf")]
mod route;
#[cfg(target_arch = "bpf")]
mod scratch;
#[cfg(target_arch = "bpf")]
mod sendmsg;
#[cfg(target_arch = "bpf")]
mod service;
#[cfg(target_arch = "bpf")]
mod sock_addr;
#[cfg(target_arch = "bpf")]
mod translate;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
mod verdict {
    //! From the core's answer to what the kernel does with the call or the packet.

    use aya_ebpf::helpers::generated::bpf_set_retval;

    use crate::{
        frame::Buffer, packet::Packet, path::Action, refuse::refuse, report, route::REDIRECT,
        service::Refusal,
    };

    /// The packet goes on: to the next program, then through the stack (`TCX_NEXT`,
    /// `TC_ACT_UNSPEC`).
    pub const PASS: i32 = -1;
    /// The packet is no more (`TCX_DROP`, `TC_ACT_SHOT`).
    const DROP: i32 = 2;

    /// The system call goes on.
    const PROCEED: i32 = 1;
    /// The system call ends, with the error set before.
    const STOP: i32 = 0;

    const ECONNREFUSED: i32 = 111;
    const EHOSTUNREACH: i32 = 113;

    /// Ends a socket hook: every outcome of the core, and what it means for the caller.
    #[inline(always)]
    pub fn of(outcome: Result<(), Refusal>) -> i32 {
        match outcome {
            Ok(()) | Err(Refusal::NotAService | Refusal::SourceUnknown) => PROCEED,
            Err(
                Refusal::NoEndpoints
                | Refusal::UnknownPort
                | Refusal::EntryUnreadable
                | Refusal::EndpointUnreadable,
            ) => fail_with(ECONNREFUSED),
            // Kubernetes says dropped; a socket can be told at once, and not by "refused",
            // which would claim that nobody serves this anywhere. The last ones are outcomes of
            // packets only.
            Err(
                Refusal::NoLocalEndpoints
                | Refusal::SourceNotAllowed
                | Refusal::NatPortsExhausted
                | Refusal::FlowNotInserted
                | Refusal::FragmentWithoutFirst
                | Refusal::Malformed
                | Refusal::NoRoute
                | Refusal::UnallocatedClusterIp
                | Refusal::NoNodeAddress
                | Refusal::NothingToReset,
            ) => fail_with(EHOSTUNREACH),
        }
    }

    /// Ends a hook that only dresses an address up, which the kernel allows no other verdict.
    #[inline(always)]
    pub const fn shown() -> i32 {
        PROCEED
    }

    /// Ends a classifier for a packet that came in. What nobody serves is refused, for the client
    /// to know; what a policy keeps out is dropped.
    #[inline(always)]
    pub fn of_packet(buffer: &Buffer, packet: &Packet, outcome: Result<Action, Refusal>) -> i32 {
        match outcome {
            Err(
                Refusal::NoEndpoints
                | Refusal::UnknownPort
                | Refusal::EntryUnreadable
                | Refusal::EndpointUnreadable,
            ) if refuse(buffer, packet) => REDIRECT as i32,
            other => of_leaving(other),
        }
    }

    /// Ends a classifier for a packet that nobody can be told about.
    #[inline(always)]
    pub fn of_leaving(outcome: Result<Action, Refusal>) -> i32 {
        match outcome {
            Ok(Action::Pass) | Err(Refusal::NotAService | Refusal::SourceUnknown) => PASS,
            Ok(Action::Sent) => REDIRECT as i32,
            // Counted where the flow was to be opened.
            Err(
                Refusal::NoEndpoints
                | Refusal::NoLocalEndpoints
                | Refusal::UnknownPort
                | Refusal::EntryUnreadable
                | Refusal::EndpointUnreadable
                | Refusal::SourceNotAllowed
                | Refusal::NatPortsExhausted
                | Refusal::NoNodeAddress
                | Refusal::NothingToReset
                | Refusal::FlowNotInserted,
            ) => DROP,
            Err(
                refusal @ (Refusal::FragmentWithoutFirst
                | Refusal::Malformed
                | Refusal::NoRoute
                | Refusal::UnallocatedClusterIp),
            ) => {
                if let Some(outcome) = refusal.outcome() {
                    report::count(outcome);
                }
                DROP
            }
        }
    }

    #[inline(always)]
    fn fail_with(errno: i32) -> i32 {
        // SAFETY: the helper takes a plain number and is allowed in the connect and sendmsg hooks.
        unsafe { bpf_set_retval(-errno) };
        STOP
    }
}

/// What the kernel reads to decide which helpers a program may call; it knows this spelling of
/// the crate's GPL-2.0 half, not the SPDX expression.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 4] = *b"GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // Unreachable: the verifier refuses a program that could loop here.
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!("these programs run in the kernel; build them for bpfel-unknown-none");
    std::process::exit(2);
}
