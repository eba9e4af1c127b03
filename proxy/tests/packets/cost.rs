//! What a packet costs: nanoseconds of each program in each case, beside those of an empty program and
//! of one with a single look-up. `cargo xtask bench packets` runs this, and reads what it writes to
//! the file that `PODIUM_COSTS` names.

use std::{
    collections::HashSet,
    env, fs,
    os::fd::{AsFd as _, OwnedFd},
};

use podium_proxy_ebpf::{
    FlowEntry, FlowKey,
    FrontendKind::{ClusterIp, NodePort},
    PortRange, Protocol,
};
use serde_json::{Value, json};

use crate::{
    anatomy::anatomy,
    bpf::{Context, time_runs},
    fixture::Fixture,
    forward::{answer, packet},
    net::{FAMILIES, Net},
    packet::{Body, Packet},
    stage::{Stage, empty, one_lookup},
    world::{At, LIMITS, Verdict, World},
};

/// Where the figures go.
const COSTS: &str = "PODIUM_COSTS";
/// How often everything is measured: an odd number, so that there is a median.
const ROUNDS: &str = "PODIUM_COSTS_ROUNDS";
/// Turns of everybody within a round. The figure of a round is the least of them: what else the
/// machine does only adds to it.
const TURNS: usize = 15;
/// The same of cases that open flows, which have to be forgotten again each time.
const TURNS_FRESH: usize = 5;
/// Runs in one call into the kernel.
const REPEAT: u32 = 500;
/// Bytes of data in each packet: all headers shall be within what is put back.
const DATA: usize = 64;

/// A program on a packet.
struct Case {
    at: At,
    net: Net,
    name: &'static str,
    packet: Packet,
    expected: Verdict,
    /// Each run has a source port of its own.
    fresh: bool,
}

fn with_data(packet: Packet) -> Packet {
    let mut packet = packet;
    match &mut packet.body {
        Body::Tcp { data, .. } | Body::Udp { data, .. } => *data = vec![b'x'; DATA],
        _ => {}
    }
    packet
}

/// The cases of packets from outside to one service, whose endpoint is elsewhere or here.
fn from_outside(fixture: &mut Fixture<'_>, cases: &mut Vec<Case>) {
    let net = fixture.net;
    for (to, endpoint) in [("node:30080", "far:8080"), ("node:30081", "pod:8080")] {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let web = fixture.service(endpoint, protocol, &[endpoint]).at(NodePort, to);
            fixture.serve(web);
            let first = with_data(packet(net, protocol, "client:40000", to, true));
            let later = with_data(packet(net, protocol, "client:40000", to, false));
            let forwarded = endpoint.starts_with("far");
            let (there, back) = if forwarded {
                (vec![At::Uplink], vec![At::Uplink])
            } else {
                (vec![At::Uplink, At::OutPod], vec![At::Pod, At::OutUplink])
            };
            let names = match (protocol, forwarded) {
                (Protocol::Tcp, true) => ["new flow", "established flow", "reply"],
                (Protocol::Tcp, false) => [
                    "new flow, endpoint here",
                    "established flow, endpoint here",
                    "reply, endpoint here",
                ],
                (_, true) => ["new flow, UDP", "established flow, UDP", "reply, UDP"],
                (_, false) => continue,
            };
            let mut reached = first.bytes();
            for at in &there {
                reached = fixture.world.run(*at, &reached).1;
            }
            let reply = with_data(answer(net, &later, &reached));
            let mut push = |at, name, packet: &Packet, expected, fresh| {
                let packet = packet.clone();
                cases.push(Case { at, net, name, packet, expected, fresh });
            };
            if forwarded {
                push(At::Xdp, names[1], &later, Verdict::Back, false);
                push(At::Xdp, names[2], &reply, Verdict::Back, false);
                push(At::Uplink, names[0], &first, Verdict::Redirect, true);
                push(At::Uplink, names[1], &later, Verdict::Redirect, false);
                push(At::Uplink, names[2], &reply, Verdict::Redirect, false);
                continue;
            }
            push(At::Uplink, names[0], &first, Verdict::Next, true);
            push(At::Uplink, names[1], &later, Verdict::Next, false);
            let halfway = fixture.world.run(At::Uplink, &later.bytes()).1;
            push(At::OutPod, names[1], &reading(&later, &halfway), Verdict::Next, false);
            push(At::Pod, names[2], &reply, Verdict::Next, false);
            let halfway = fixture.world.run(At::Pod, &reply.bytes()).1;
            push(At::OutUplink, names[2], &reading(&reply, &halfway), Verdict::Next, false);
            assert_eq!((there.len(), back.len()), (2, 2));
        }
    }
}

/// A packet with the ends that it was seen to have.
fn reading(like: &Packet, bytes: &[u8]) -> Packet {
    let (_, read) = crate::read::Read::frame(bytes).unwrap();
    let (from, to) = read.ports().unwrap();
    Packet { from: (read.from, from).into(), to: (read.to, to).into(), ..like.clone() }
}

/// The cases of packets of pods, and of what is not for a service.
fn others(fixture: &mut Fixture<'_>, cases: &mut Vec<Case>) {
    let net = fixture.net;
    let cluster = fixture.service("cluster", Protocol::Tcp, &["pod:8080"]);
    fixture.serve(cluster.at(ClusterIp, "cluster:80"));
    let of_pod = |first| with_data(packet(net, Protocol::Tcp, "pod2:40000", "cluster:80", first));
    fixture.world.run(At::Pod, &of_pod(true).bytes());
    let mut push = |at, name, packet, expected, fresh| {
        cases.push(Case { at, net, name, packet, expected, fresh });
    };
    push(At::Pod, "new flow", of_pod(true), Verdict::Next, true);
    push(At::Pod, "established flow", of_pod(false), Verdict::Next, false);
    let foreign = with_data(packet(net, Protocol::Tcp, "client:40000", "pod:5000", false));
    for at in [At::Xdp, At::Uplink, At::Pod, At::OutUplink] {
        push(at, "not a service", foreign.clone(), Verdict::Next, false);
    }
    let unknown = with_data(packet(net, Protocol::Tcp, "client:41000", "node:30080", true));
    push(At::Xdp, "new flow, left to tcx", unknown, Verdict::Next, false);
}

/// What is run again and again.
struct Runner {
    /// Of the cases; none for a baseline.
    case: Option<usize>,
    program: OwnedFd,
    // Holds what the program needs.
    _stage: Option<Stage>,
    context: Context,
    packet: Vec<u8>,
}

impl Runner {
    fn of_case(world: &World, cases: &[Case], index: usize) -> Self {
        let case = &cases[index];
        let mut packet = case.packet.clone();
        if case.fresh {
            packet.from.set_port(1024);
        }
        let port_at = 14 + if case.net.is_v4() { 20 } else { 40 };
        let port_at = case.fresh.then_some(port_at);
        let program = world.program(case.at).try_clone_to_owned().unwrap();
        let runner = Self::staged(&program, world.context(case.at), packet.bytes(), port_at);
        Self { case: Some(index), ..runner }
    }

    fn staged(program: &OwnedFd, context: Context, packet: Vec<u8>, at: Option<usize>) -> Self {
        let stage = Stage::new(program.as_fd(), context, &packet, at).expect("no stage");
        let program = stage.program().try_clone_to_owned().unwrap();
        Self { case: None, program, _stage: Some(stage), context, packet }
    }

    /// One call into the kernel: nanoseconds of a run.
    fn time(&self, world: &World, cases: &[Case], established: &HashSet<FlowKey>) -> f64 {
        let (number, ns) = time_runs(self.program.as_fd(), self.context, &self.packet, REPEAT)
            .expect("a program does not run");
        match self.case.map(|index| &cases[index]) {
            Some(case) => {
                let verdict = Verdict::new(case.at, number);
                assert_eq!(verdict, case.expected, "{} at {:?}", case.name, case.at);
                if case.fresh {
                    world.forget_all_but(established);
                }
            }
            None => assert_eq!(number, 2, "a baseline went wrong"),
        }
        // The kernel leaves out what is less than one.
        f64::from(ns) + 0.5
    }
}

/// For each kind of program: empty, empty behind what puts headers back, with one look-up.
fn baselines(world: &World, packet: &[u8]) -> Vec<Runner> {
    let mut runners = Vec::new();
    for at in [At::Xdp, At::Uplink] {
        let context = world.context(at);
        let plain = |program| {
            let packet = packet.to_vec();
            Runner { case: None, program, _stage: None, context, packet }
        };
        let nothing = empty(context).expect("no empty program");
        let staged = Runner::staged(&nothing, context, packet.to_vec(), None);
        let (key, value) = (size_of::<FlowKey>() as u32, size_of::<FlowEntry>() as u32);
        let lookup = one_lookup(context, key, value, LIMITS.flows).expect("no look-up");
        runners.extend([plain(nothing), staged, plain(lookup)]);
    }
    runners
}

#[test]
#[ignore = "measures: cargo xtask bench packets"]
fn packet_costs() {
    let mut world = World::new("cost");
    world.config.nat_ports[0] = PortRange { first: 20_000, len: 20_000 };
    world.configure();
    let mut cases = Vec::new();
    for net in FAMILIES {
        let mut fixture = Fixture::new(&mut world, net);
        from_outside(&mut fixture, &mut cases);
        others(&mut fixture, &mut cases);
    }
    let established: HashSet<FlowKey> = world.flows().into_iter().map(|(key, _)| key).collect();
    let mut runners = baselines(&world, &cases[0].packet.bytes());
    runners.extend((0..cases.len()).map(|index| Runner::of_case(&world, &cases, index)));
    let rounds = env::var(ROUNDS).map_or(5, |rounds| rounds.parse().expect("a number"));
    let mut least = vec![vec![f64::INFINITY; rounds]; runners.len()];
    for round in 0..rounds {
        for turn in 0..TURNS {
            let is_fresh = |runner: &Runner| runner.case.is_some_and(|index| cases[index].fresh);
            let takes_part = |runner: &&Runner| turn < TURNS_FRESH || !is_fresh(runner);
            for (runner, least) in
                runners.iter().zip(&mut least).filter(|(runner, _)| takes_part(runner))
            {
                least[round] = least[round].min(runner.time(&world, &cases, &established));
            }
        }
    }
    let costs = json!({ "cases": told(&runners, &cases, &least), "programs": programs(&world) });
    match env::var_os(COSTS) {
        Some(path) => fs::write(path, costs.to_string()).expect("cannot write the costs"),
        None => println!("{costs:#}"),
    }
}

/// Sizes of every program, those for sockets too.
fn programs(world: &World) -> Vec<Value> {
    let of_program = |(name, verified): (&'static str, u32)| {
        let anatomy = anatomy(world.program_named(name)).expect("no information");
        json!({
            "name": name, "verified": verified, "instructions": anatomy.instructions,
            "machineCodeBytes": anatomy.machine_code_bytes, "stackBytes": anatomy.stack_bytes,
        })
    };
    world.verified().into_iter().map(of_program).collect()
}

/// The figures of all rounds; those of cases less what putting headers back costs.
fn told(runners: &[Runner], cases: &[Case], least: &[Vec<f64>]) -> Vec<Value> {
    let kinds = |context| match context {
        Context::Frame { .. } => ("xdp", 0),
        Context::Buffer { .. } => ("tcx", 3),
    };
    let of_runner = |(runner, ns): (&Runner, &Vec<f64>)| {
        let (kind, first) = kinds(runner.context);
        let Some(case) = runner.case.map(|index| &cases[index]) else {
            return json!({ "kind": kind, "ns": ns });
        };
        let net = ns.iter().zip(&least[first]).zip(&least[first + 1]);
        let ns: Vec<f64> = net.map(|((ns, empty), staged)| ns - staged + empty).collect();
        let family = if case.net.is_v4() { "IPv4" } else { "IPv6" };
        json!({ "kind": kind, "at": case.at.name(), "family": family, "case": case.name, "ns": ns })
    };
    let mut told: Vec<Value> = runners.iter().zip(least).map(of_runner).collect();
    for (index, name) in
        [(0, "empty"), (1, "staged"), (2, "lookup"), (3, "empty"), (4, "staged"), (5, "lookup")]
    {
        told[index]["baseline"] = json!(name);
    }
    told
}
