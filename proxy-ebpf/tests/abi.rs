//! The ABI as the kernel sees it: sizes, memory, byte order; and the arithmetic of choosing.

use std::{collections::BTreeMap, net::SocketAddr};

use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, Cidr, Config, Endpoint, Event, FlowEntry, FlowKey,
    FragmentKey, FragmentPorts, FrontendKind, Hook, Monitor, NoEndpoint, Origin, Outcome, PeerKey,
    Protocol, ServiceCounters, ServiceEntry, ServiceKey, ServiceName, SourceRange, Span,
    StreamPeer, Tuple, choice, flags, flow, maps,
};

fn at(text: &str) -> AddressPort {
    AddressPort::from(text.parse::<SocketAddr>().expect("an address"))
}

#[test]
fn keys_and_values_have_their_sizes_and_no_padding() {
    let sizes = [
        (size_of::<AddressPort>(), 24),
        (size_of::<Endpoint>(), 24),
        (size_of::<ServiceKey>(), 20),
        (size_of::<ServiceEntry>(), 40),
        (size_of::<ServiceName>(), 200),
        (size_of::<ServiceCounters>(), 24),
        (size_of::<AffinityKey>(), 24),
        (size_of::<AffinityEntry>(), 32),
        (size_of::<PeerKey>(), 32),
        (size_of::<StreamPeer>(), 64),
        (size_of::<FlowKey>(), 40),
        (size_of::<FlowEntry>(), 56),
        (size_of::<FragmentKey>(), 40),
        (size_of::<FragmentPorts>(), 4),
        (size_of::<SourceRange>(), 20),
        (size_of::<Config>(), 144),
        (size_of::<Monitor>(), 16),
        (size_of::<Event>(), 104),
    ];
    for (found, expected) in sizes {
        assert_eq!(found, expected);
    }
}

#[test]
fn default_maps_stay_within_a_memory_budget() {
    let services = maps::SERVICES_DEFAULT as usize;
    // What is allocated up front: the arrays (those per CPU for each of 64 CPUs) and the LRU maps
    // with about 64 bytes of kernel overhead an element. Services, names and source ranges grow
    // with use.
    let arrays = maps::ENDPOINTS_DEFAULT as usize * size_of::<Endpoint>()
        + maps::MAGLEV_DEFAULT as usize * choice::SLOTS_PER_BLOCK as usize * size_of::<u16>()
        + services * size_of::<u32>()
        + maps::SOCKET_PEERS_DEFAULT as usize * size_of::<StreamPeer>()
        + maps::EVENTS_BYTES as usize;
    let lru = [
        (maps::AFFINITY_DEFAULT, size_of::<AffinityKey>() + size_of::<AffinityEntry>()),
        (maps::SOCKET_PEERS_DEFAULT, size_of::<PeerKey>() + size_of::<AddressPort>()),
        (maps::FLOWS_DEFAULT, size_of::<FlowKey>() + size_of::<FlowEntry>()),
        (maps::FRAGMENTS_LEN, size_of::<FragmentKey>() + size_of::<FragmentPorts>()),
    ];
    let lru: usize = lru.into_iter().map(|(len, element)| len as usize * (element + 64)).sum();
    assert!(arrays + lru < 96 << 20, "{} MiB", (arrays + lru) >> 20);
    let per_cpu = services * size_of::<ServiceCounters>();
    assert!(per_cpu < 2 << 20, "{} KiB for each CPU", per_cpu >> 10);
}

#[test]
fn addresses_are_in_network_order_and_come_back() {
    let v4 = at("10.96.0.10:80");
    assert_eq!(v4.ip, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 10, 96, 0, 10]);
    assert_eq!(v4.port, [0, 80]);
    for text in ["10.96.0.10:80", "[fd00:96::10]:65535"] {
        assert_eq!(at(text).socket_addr().to_string(), text);
    }
    assert_eq!(at("[::ffff:10.96.0.10]:80"), v4, "a mapped address is the IPv4 one");
}

#[test]
fn order_is_that_of_the_bytes() {
    let sorted = ["1.2.3.4:1", "1.2.3.4:256", "1.2.3.5:1", "10.0.0.0:1", "[fd00::1]:1"].map(at);
    assert!(sorted.is_sorted() && sorted.is_sorted_by_key(AddressPort::order));
}

#[test]
fn a_stream_peer_is_whole_only_as_it_was_made() {
    let made = StreamPeer::new(7, at("10.244.0.1:8080"), at("10.96.0.10:80"));
    assert!(made.is_whole());
    for torn in [
        StreamPeer { socket_cookie: 8, ..made },
        StreamPeer { endpoint: at("10.244.0.1:8081"), ..made },
        StreamPeer { service: at("[fd00::10]:80"), ..made },
        StreamPeer { sealed: !made.sealed, ..made },
        StreamPeer { socket_cookie: 0, sealed: 0, ..made },
    ] {
        assert!(!torn.is_whole(), "{torn:?}");
    }
    let nobody = [0; 64];
    // SAFETY: plain bytes of its size, as in a new map.
    assert!(!unsafe { nobody.as_ptr().cast::<StreamPeer>().read_unaligned() }.is_whole());
    assert_eq!(StreamPeer::place(10, 7), Some(3));
    assert_eq!(StreamPeer::place(10, 0), None);
}

#[test]
fn a_seal_covers_every_field_and_the_key() {
    let key = ServiceKey::new(&at("10.96.0.10:80"), Protocol::Tcp);
    let entry = ServiceEntry {
        id: 1,
        flags: 2,
        affinity_secs: 3,
        endpoints: Span { start: 4, len: 5 },
        local: Span { start: 6, len: 7 },
        maglev: Span { start: 8, len: 10 },
        sealed: 0,
    };
    let seal = entry.seal(&key);
    let others = [
        ServiceEntry { id: 9, ..entry },
        ServiceEntry { flags: 9, ..entry },
        ServiceEntry { affinity_secs: 9, ..entry },
        ServiceEntry { endpoints: Span { start: 9, len: 5 }, ..entry },
        ServiceEntry { endpoints: Span { start: 4, len: 9 }, ..entry },
        ServiceEntry { local: Span { start: 9, len: 7 }, ..entry },
        ServiceEntry { local: Span { start: 6, len: 9 }, ..entry },
        ServiceEntry { maglev: Span { start: 9, len: 10 }, ..entry },
        ServiceEntry { maglev: Span { start: 8, len: 9 }, ..entry },
    ];
    assert!(others.iter().all(|other| other.seal(&key) != seal));
    for other in [
        ServiceKey::new(&at("10.96.0.10:80"), Protocol::Udp),
        ServiceKey::new(&at("10.96.0.10:81"), Protocol::Tcp),
        ServiceKey::new(&at("10.96.0.11:80"), Protocol::Tcp),
    ] {
        assert_ne!(entry.seal(&other), seal);
    }
}

#[test]
fn candidates_follow_the_policy_of_where_traffic_comes_from() {
    let (all, local) = (Span { start: 0, len: 3 }, Span { start: 3, len: 1 });
    let entry = ServiceEntry { endpoints: all, local, ..ServiceEntry::default() };
    let internal = ServiceEntry { flags: flags::INTERNAL_LOCAL, ..entry };
    let external = ServiceEntry { flags: flags::EXTERNAL_LOCAL, ..entry };
    let without_local = |entry| ServiceEntry { local: Span::default(), ..entry };
    let empty = |entry| ServiceEntry { endpoints: Span::default(), ..entry };
    let table = [
        (entry, Ok(all), Ok(all)),
        (internal, Ok(local), Ok(all)),
        (external, Ok(all), Ok(local)),
        (without_local(internal), Err(NoEndpoint::OnThisNode), Ok(all)),
        (without_local(external), Ok(all), Err(NoEndpoint::OnThisNode)),
        (empty(external), Err(NoEndpoint::Anywhere), Err(NoEndpoint::Anywhere)),
        (ServiceEntry::default(), Err(NoEndpoint::Anywhere), Err(NoEndpoint::Anywhere)),
    ];
    for (entry, inside, outside) in table {
        assert_eq!(entry.candidates(Origin::Inside), inside);
        assert_eq!(entry.candidates(Origin::Outside), outside);
    }
}

#[test]
fn kinds_and_outcomes_come_back_from_their_numbers() {
    for kind in [
        FrontendKind::ClusterIp,
        FrontendKind::ExternalIp,
        FrontendKind::LoadBalancer,
        FrontendKind::NodePort,
        FrontendKind::LoopbackNodePort,
    ] {
        let other_bits = flags::INTERNAL_LOCAL | flags::SOURCE_RANGES | flags::HOST_ONLY;
        assert_eq!(FrontendKind::from_flags(kind.to_flags() | other_bits), Some(kind));
        assert_eq!(kind.to_flags() & other_bits, 0);
    }
    assert_eq!(FrontendKind::from_flags(0xf << flags::KIND_SHIFT), None);
    for (number, outcome) in (0_u8..).zip(Outcome::ALL) {
        assert_eq!((outcome as u8, Outcome::from_number(number)), (number, Some(outcome)));
    }
    let beyond = u8::try_from(Outcome::COUNT).expect("a byte");
    assert_eq!(Outcome::from_number(beyond), None);
}

#[test]
fn a_block_of_addresses_contains_its_own() {
    let block = |ip: &str, prefix_len| Cidr { ip: at(&format!("{ip}:0")).ip, prefix_len };
    let contains = |block: Cidr, ip: &str| block.contains(&at(&format!("{ip}:0")).ip);
    let services = block("10.96.0.0", 96 + 16);
    assert!(contains(services, "10.96.0.0") && contains(services, "10.96.255.255"));
    assert!(!contains(services, "10.97.0.0") && !contains(services, "[fd00::1]"));
    assert!(contains(block("[fd00:96::]", 112), "[fd00:96::ffff]"));
    assert!(contains(block("[fd00:96::1]", 128), "[fd00:96::1]"));
    assert!(!contains(block("[::]", 0), "[::]"), "no block");
    assert!(!contains(block("[::]", 129), "[::]"), "nonsense");
}

#[test]
fn the_answer_to_a_flow_is_known_by_where_its_source_went() {
    let (client, service) = (at("192.0.2.1:4000"), at("203.0.113.1:80"));
    let (endpoint, node) = (at("10.244.1.2:8080"), at("10.0.0.1:61000"));
    let tcp = Protocol::Tcp as u8;
    let flow = |flags, from| FlowEntry {
        to: Tuple::new(from, &endpoint),
        flags: flow::flags::ORIGIN | flags,
        service_id: 0,
        generation: 0,
        used_at_ns: 0,
    };
    let origin = FlowKey::new(Tuple::new(&client, &service), tcp, Hook::Ingress);
    assert_eq!((origin.tuple.from(), origin.tuple.to()), (client, service));
    assert_eq!(
        flow(0, &client).answer_key(tcp),
        Some(FlowKey::new(Tuple::new(&endpoint, &client), tcp, Hook::Egress))
    );
    assert_eq!(
        flow(flow::flags::SOURCE_REWRITTEN, &node).answer_key(tcp),
        Some(FlowKey::new(Tuple::new(&endpoint, &node), tcp, Hook::Ingress))
    );
    assert_eq!(flow(flow::flags::DIRECT_RETURN, &client).answer_key(tcp), None);
}

#[test]
fn flows_hash_evenly_and_slots_stay_within_the_table() {
    let slots = choice::maglev_slots(10);
    let mut counts = vec![0_u32; slots as usize];
    for port in 1..=60_000_u16 {
        let client = AddressPort::new(at("192.0.2.1:0").ip, port.to_be_bytes());
        let hash = choice::flow_hash(&client, Protocol::Tcp as u8);
        counts[choice::slot(slots, hash) as usize] += 1;
    }
    // 60,000 balls into 4,093 bins: 14.7 each on average, the fullest below 45 by a wide margin.
    assert!(counts.iter().all(|count| *count < 45));
    assert!(counts.iter().filter(|count| **count == 0).count() < 10);
    assert_eq!(choice::slot(slots, u32::MAX), slots - 1);
    let client = at("192.0.2.1:4000");
    let (tcp, udp) = (Protocol::Tcp as u8, Protocol::Udp as u8);
    assert_ne!(choice::flow_hash(&client, tcp), choice::flow_hash(&client, udp));
    assert_eq!(choice::maglev_blocks(slots), 1024);
}

#[test]
fn picks_are_even_and_within_the_span() {
    let span = Span { start: 100, len: 7 };
    let mut counts: BTreeMap<u32, u32> = BTreeMap::new();
    for step in 0..70_000_u32 {
        let random = step.wrapping_mul(0x9e37_79b1);
        *counts.entry(choice::pick(span, random).unwrap()).or_default() += 1;
    }
    assert_eq!(counts.keys().copied().collect::<Vec<_>>(), (100..107).collect::<Vec<_>>());
    assert!(counts.values().all(|count| (9_900..=10_100).contains(count)), "{counts:?}");
    assert_eq!(choice::pick(span, u32::MAX), Some(106));
    assert_eq!(choice::pick(Span::default(), 1), None);
}

#[test]
fn finds_every_element_of_spans_of_any_length() {
    for len in [0, 1, 2, 3, 100, choice::SPAN_LEN_MAX] {
        let element = |index: u32| {
            let [a, b, c, d] = (index * 2).to_be_bytes();
            AddressPort::from(SocketAddr::from(([a, b, c, d], 80)))
        };
        let span = Span { start: 5, len };
        let read = |index: u32| {
            let inside = index >= 5 && index < 5 + len;
            inside.then(|| Endpoint::new(&element(index - 5), Endpoint::ON_NODE))
        };
        let finds = |index: u32| {
            let found = choice::find(span, &element(index), read);
            assert_eq!(found.map(|found| found.at()), Some(element(index)), "{index} of {len}");
        };
        for index in (0..len).step_by(if len > 1000 { 97 } else { 1 }) {
            finds(index);
        }
        if len > 0 {
            finds(len - 1);
        }
        assert_eq!(choice::find(span, &at("0.0.0.1:80"), read), None);
        assert_eq!(choice::find(span, &at("255.0.0.1:80"), read), None);
    }
}
