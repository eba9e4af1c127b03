//! The ABI as the kernel sees it: sizes, memory, byte order; and the arithmetic of choosing.

use std::{collections::BTreeMap, net::SocketAddr};

use podium_proxy_ebpf::{
    AddressPort, AffinityEntry, AffinityKey, NoEndpoint, PeerKey, Protocol, ServiceEntry,
    ServiceKey, ServiceName, Span, choice, flags, maps,
};

fn at(text: &str) -> AddressPort {
    AddressPort::from(text.parse::<SocketAddr>().expect("an address"))
}

#[test]
fn keys_and_values_have_their_sizes_and_no_padding() {
    let sizes = [
        (size_of::<AddressPort>(), 24),
        (size_of::<ServiceKey>(), 20),
        (size_of::<ServiceEntry>(), 32),
        (size_of::<ServiceName>(), 200),
        (size_of::<AffinityKey>(), 16),
        (size_of::<AffinityEntry>(), 32),
        (size_of::<PeerKey>(), 32),
    ];
    for (found, expected) in sizes {
        assert_eq!(found, expected);
    }
}

#[test]
fn default_maps_stay_within_a_memory_budget() {
    let services = maps::SERVICES_DEFAULT as usize;
    // What is allocated up front: the arrays (the counter for each of 64 CPUs) and the LRU maps
    // with about 64 bytes of kernel overhead an element. Services and names grow with use.
    let fixed = maps::ENDPOINTS_DEFAULT as usize * size_of::<AddressPort>()
        + services * 8 * 64
        + maps::AFFINITY_LEN as usize
            * (size_of::<AffinityKey>() + size_of::<AffinityEntry>() + 64)
        + maps::SOCKET_PEERS_LEN as usize * (size_of::<PeerKey>() + size_of::<AddressPort>() + 64);
    assert!(fixed < 64 << 20, "{} MiB", fixed >> 20);
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
fn a_seal_covers_every_field_and_the_key() {
    let key = ServiceKey::new(&at("10.96.0.10:80"), Protocol::Tcp);
    let entry = ServiceEntry {
        id: 1,
        flags: 2,
        affinity_secs: 3,
        endpoints: Span { start: 4, len: 5 },
        local: Span { start: 6, len: 7 },
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
fn candidates_follow_the_policy() {
    let (all, local) = (Span { start: 0, len: 3 }, Span { start: 3, len: 1 });
    let entry = ServiceEntry { endpoints: all, local, ..ServiceEntry::default() };
    let only = ServiceEntry { flags: flags::LOCAL_ONLY, ..entry };
    let table = [
        (entry, Ok(all)),
        (only, Ok(local)),
        (ServiceEntry { local: Span::default(), ..only }, Err(NoEndpoint::OnThisNode)),
        (ServiceEntry { endpoints: Span::default(), ..only }, Err(NoEndpoint::Anywhere)),
        (ServiceEntry::default(), Err(NoEndpoint::Anywhere)),
    ];
    for (entry, expected) in table {
        assert_eq!(entry.candidates(), expected);
    }
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
        let read = |index: u32| (index >= 5 && index < 5 + len).then(|| element(index - 5));
        for index in (0..len).step_by(if len > 1000 { 97 } else { 1 }) {
            assert!(choice::find(span, &element(index), read), "{index} of {len}");
        }
        if len > 0 {
            assert!(choice::find(span, &element(len - 1), read), "last of {len}");
        }
        assert!(!choice::find(span, &at("0.0.0.1:80"), read));
        assert!(!choice::find(span, &at("255.0.0.1:80"), read));
    }
}
