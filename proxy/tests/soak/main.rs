//! The soak: 1,000 services change at random for more than a minute, with traffic by all ways, and
//! the agent dies and starts again meanwhile. No answer comes from a wrong endpoint, the kernel
//! holds what a plain model says at each pause, and in the end no map holds anything.
//!
//! Needs root, cgroup v2, iproute2 and util-linux, and fails where they are missing;
//! `--skip kernel_` leaves it out.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod asker;
mod island;
#[expect(dead_code, reason = "shared with the tests of the packet path, which use all of it")]
#[path = "../net/netns.rs"]
mod netns;
mod oracle;
mod plan;
mod random;
mod server;
mod settle;
mod traffic;

use std::{
    collections::BTreeMap,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use aya::maps::{HashMap, Map, MapData};
use podium_proxy_ebpf::{
    AffinityEntry, AffinityKey, FlowEntry, FlowKey,
    maps::{AFFINITY, AFFINITY_DEFAULT, FLOWS, FRAGMENTS_LEN, SOCKET_PEERS_DEFAULT},
};

use crate::{
    asker::Asker,
    island::{Island, PATIENCE},
    plan::SERVICES,
    random::Random,
    settle::settle,
    traffic::{From, HOT, Traffic},
};

/// How long services change, between two pauses.
const CHANGES: Duration = Duration::from_secs(8);
/// Pauses before the agent is killed, before it gets other sizes, and after that.
const ROUNDS: usize = 4;
/// Changes are made so many at a time, so often.
const BATCH: usize = 6;
const BATCH_EVERY: Duration = Duration::from_millis(200);
/// Changes that nobody takes in before the next agent does.
const WHILE_DOWN: usize = 120;
/// Traffic on services that stay as they are.
const PAUSE: Duration = Duration::from_secs(1);

const OTHER_SIZES: [&str; 4] = ["--max-services", "80000", "--max-flows", "300000"];

/// None of these may happen: nothing here is full, and nothing may be unreadable.
const FAULTS: [&str; 10] = [
    "entry_unreadable",
    "endpoint_unreadable",
    "nat_ports_exhausted",
    "flow_not_inserted",
    "no_route",
    "affinity_not_inserted",
    "peer_not_inserted",
    "fragment_not_inserted",
    "malformed",
    "no_node_address",
];

struct Soak {
    // Processes go before the cgroup they are in.
    _askers: Vec<Asker>,
    island: Island,
    traffic: Arc<Traffic>,
    random: Random,
    changes: usize,
    started: Instant,
}

impl Soak {
    fn say(&self, what: &str) {
        println!("{:6.1} s  {what}", self.started.elapsed().as_secs_f64());
    }

    /// Changes services for a while, then waits until the kernel holds them, and lets traffic go on
    /// meanwhile.
    fn round(&mut self) {
        let until = Instant::now() + CHANGES;
        while Instant::now() < until {
            (0..BATCH).for_each(|_| self.change());
            thread::sleep(BATCH_EVERY);
        }
        self.settle();
        thread::sleep(PAUSE);
    }

    fn change(&mut self) {
        let among = if self.random.one_in(3) { HOT } else { SERVICES };
        let number = self.random.below(among);
        let (name, text) = {
            let mut services = self.traffic.services.lock().unwrap();
            let service = &mut services[number];
            let existed = service.now().exists;
            service.change(&mut self.random);
            let exists = service.now().exists;
            assert!(existed || exists, "a service that is gone can only come back");
            (service.name(), exists.then(|| service.manifest()))
        };
        self.island.manifest(&name, text.as_deref());
        self.changes += 1;
    }

    /// Waits until the kernel holds the model; what was before cannot be an excuse any more.
    fn settle(&mut self) {
        let started = Instant::now();
        // Traffic goes on meanwhile.
        let services: Vec<_> = {
            let services = self.traffic.services.lock().unwrap();
            services.iter().map(plan::Service::copied).collect()
        };
        settle(&self.island.pins, &services);
        for service in self.traffic.services.lock().unwrap().iter_mut() {
            service.settled_before = service.settled;
            service.settled = service.states.len() - 1;
        }
        let tally = self.traffic.tally.lock().unwrap();
        self.say(&format!(
            "settled after {:.1?}; {} changes, {} questions, {} answers, {} wrong; agent {} MiB",
            started.elapsed(),
            self.changes,
            tally.questions(),
            tally.answers(),
            tally.wrong(),
            self.island.agent_use().0 / 1024
        ));
    }

    fn faults(&self) {
        let metrics = self.island.metrics();
        let count =
            |name: &str| metrics[&format!("podium_proxy_outcomes_total{{outcome=\"{name}\"}}")];
        let outcomes: Vec<String> = (metrics.iter())
            .filter_map(|(name, value)| {
                let name = name.strip_prefix("podium_proxy_outcomes_total{outcome=\"")?;
                (*value > 0.0).then(|| format!("{} {value}", name.trim_end_matches("\"}")))
            })
            .collect();
        self.say(&format!("outcomes: {}", outcomes.join(", ")));
        let faults: Vec<&str> = FAULTS.into_iter().filter(|name| count(name) > 0.0).collect();
        assert!(faults.is_empty(), "counted: {faults:?}");
    }

    /// Elements in use of each map, as the agent counts them.
    fn map_use(&self) -> BTreeMap<String, f64> {
        (self.island.metrics().into_iter())
            .filter_map(|(name, used)| {
                let name = name.strip_prefix("podium_proxy_map_used{map=\"")?;
                Some((name.trim_end_matches("\"}").to_owned(), used))
            })
            .collect()
    }
}

fn seed() -> u64 {
    let given = std::env::var("PODIUM_SOAK_SEED").ok().and_then(|text| text.parse().ok());
    given.unwrap_or_else(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        u64::from(now.subsec_micros())
    })
}

#[test]
fn kernel_soak_a_thousand_services_changing() {
    let seed = seed();
    println!("seed {seed} (PODIUM_SOAK_SEED={seed} repeats the changes)");
    let mut random = Random(seed);
    let mut island = Island::new();
    // Processes first: they are made by fork, and this one has few threads as yet.
    let (pod_asker, pod) = Asker::process(&island.pods, &island.cgroup);
    let (host_asker, host) = Asker::process(&island.node, &island.cgroup);
    let (client_asker, client) = Asker::thread(&island.client);
    let (plain_asker, plain) = Asker::thread(&island.plain);
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.worker_threads(2).enable_all().build().unwrap();
    let services = plan::services(&mut random);
    for service in &services {
        island.manifest(&service.name(), Some(&service.manifest()));
    }
    island.start(&[], &[]);
    let _inside = runtime.enter();
    let askers =
        vec![(From::Client, client), (From::Plain, plain), (From::Pod, pod), (From::Host, host)];
    let traffic = Traffic::new(services, askers);
    let _askers = vec![pod_asker, host_asker, client_asker, plain_asker];
    let mut soak = Soak { _askers, island, traffic, random, changes: 0, started: Instant::now() };
    soak.settle();
    let traffic = Arc::clone(&soak.traffic);
    traffic.start(&mut soak.random);
    run(&mut soak);
    runtime.block_on(traffic.stop());
    println!("{}", traffic.tally.lock().unwrap());
    emptied(&mut soak);
    let tally = traffic.tally.lock().unwrap();
    assert!(tally.answers() > 10_000, "too few to mean anything");
    assert_eq!(tally.wrong(), 0, "wrong; see above");
}

fn run(soak: &mut Soak) {
    (0..ROUNDS).for_each(|_| soak.round());
    soak.faults();
    soak.say("kill -9, changes meanwhile");
    soak.island.kill();
    (0..WHILE_DOWN).for_each(|_| soak.change());
    soak.island.start(&[], &[]);
    (0..ROUNDS).for_each(|_| soak.round());
    soak.faults();
    soak.say("other sizes");
    soak.island.kill();
    (0..WHILE_DOWN).for_each(|_| soak.change());
    soak.island.start(&[], &OTHER_SIZES);
    // The first round takes what one change after the other takes.
    soak.round();
    let (rss_kib, descriptors) = soak.island.agent_use();
    (0..ROUNDS).for_each(|_| soak.round());
    soak.faults();
    let (rss_end_kib, descriptors_end) = soak.island.agent_use();
    soak.say(&format!(
        "the agent has {rss_end_kib} KiB and {descriptors_end} descriptors; \
         {rss_kib} KiB and {descriptors} descriptors after its first round"
    ));
    assert!(rss_end_kib < rss_kib * 3 / 2, "memory leaks");
    assert!(descriptors_end <= descriptors + 4, "descriptors leak");
}

/// What there may be in maps at most once all services are gone.
const LEFT: [(&str, u32); 8] = [
    ("services", 0),
    ("names", 0),
    ("maglev", 0),
    ("source_ranges", 0),
    ("endpoints", 0),
    ("fragments", FRAGMENTS_LEN),
    ("affinity", AFFINITY_DEFAULT),
    ("socket_peers", SOCKET_PEERS_DEFAULT),
];

/// Deletes all services; nothing is left of them.
fn emptied(soak: &mut Soak) {
    soak.say(&format!("maps: {:?}", soak.map_use()));
    for service in soak.traffic.services.lock().unwrap().iter_mut() {
        if service.now().exists {
            service.states.push(plan::State { exists: false, ..*service.now() });
            soak.island.manifest(&service.name(), None);
        }
    }
    soak.settle();
    let (rss_kib, descriptors) = soak.island.agent_use();
    soak.say(&format!("without services: {rss_kib} KiB, {descriptors} descriptors"));
    // The agent counts once a second.
    let started = Instant::now();
    let used = loop {
        let used = soak.map_use();
        if LEFT.iter().all(|(map, most)| used[*map] <= f64::from(*most)) {
            break used;
        }
        assert!(started.elapsed() < PATIENCE, "left in maps: {used:?}, not {LEFT:?}");
        thread::sleep(Duration::from_millis(200));
    };
    soak.say(&format!("maps: {used:?}"));
    forgotten(soak);
}

/// Flows are over after minutes. For an agent whose clock is ahead they have passed already.
fn forgotten(soak: &mut Soak) {
    let (set, _) = soak.island.pins.current().unwrap();
    let count = || [FLOWS, AFFINITY].map(|map| entries(&set, map));
    soak.say(&format!("flows and clients with affinity: {:?}", count()));
    soak.island.kill();
    let ahead = ["unshare", "--time", "--monotonic", "400", "--fork", "--kill-child", "--"];
    soak.island.start(&ahead, &OTHER_SIZES);
    let started = Instant::now();
    while count() != [0, 0] {
        assert!(started.elapsed() < PATIENCE, "flows and clients remembered: {:?}", count());
        thread::sleep(Duration::from_millis(200));
    }
    soak.say("no flow and no client is left");
}

/// How many entries a hash map has, counted one by one.
fn entries(set: &Path, map: &str) -> usize {
    let map = Map::from_map_data(MapData::from_pin(set.join(map)).unwrap()).unwrap();
    if let Ok(flows) = HashMap::<_, FlowKey, FlowEntry>::try_from(&map) {
        return flows.keys().filter(Result::is_ok).count();
    }
    let affinity = HashMap::<_, AffinityKey, AffinityEntry>::try_from(&map).unwrap();
    affinity.keys().filter(Result::is_ok).count()
}
