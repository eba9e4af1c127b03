//! What the services are, by a plain model that knows nothing of the code it judges: who has which
//! addresses, every state a service was in, and what each state makes of a question.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde_json::{Value, json};

use crate::random::Random;

pub const SERVICES: usize = 1000;
/// Endpoints there are: the first half on the node, the others elsewhere. A set of them is a word.
pub const ENDPOINTS: usize = 64;
pub const LOCAL: u64 = u32::MAX as u64;
pub const POD_PORT: u16 = 8080;
pub const NODE: &str = "node-a";
pub const NODE_IPS: [&str; 2] = ["192.0.2.11", "2001:db8:a::11"];

/// The addresses of an endpoint.
pub fn endpoint_ip(endpoint: usize, family: usize) -> IpAddr {
    let net = if endpoint < ENDPOINTS / 2 { 1 } else { 2 };
    let host = u8::try_from(10 + endpoint).unwrap();
    match family {
        0 => Ipv4Addr::new(10, 244, net, host).into(),
        _ => Ipv6Addr::new(0xfd00, 0x10, 0x244, net.into(), 0, 0, 0, host.into()).into(),
    }
}

/// The endpoint with an address.
pub fn endpoint_at(ip: IpAddr) -> Option<usize> {
    (0..ENDPOINTS).find(|endpoint| endpoint_ip(*endpoint, usize::from(ip.is_ipv6())) == ip)
}

/// What a service is for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub exists: bool,
    /// A bit for each endpoint.
    pub endpoints: u64,
    pub internal_local: bool,
    pub external_local: bool,
    pub affinity: bool,
    /// Of its load balancer's addresses: whom they let in.
    pub ranges: Ranges,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    Everybody,
    /// The client and others.
    Client,
    /// Others.
    Strangers,
}

impl Ranges {
    /// As the Service and `status` write them, IPv4 before IPv6.
    pub const fn texts(self) -> &'static [&'static str] {
        match self {
            Self::Everybody => &[],
            Self::Client => &["192.0.2.8/29", "2001:db8:a::/64"],
            Self::Strangers => &["198.18.0.0/15", "2001:db8:ff::/48"],
        }
    }
}

/// A way to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// From the node or one of its pods.
    ClusterIp,
    /// From the client.
    NodePort,
    /// From the client.
    Balancer,
    /// From the node, by its loopback address.
    Loopback,
}

/// What should come of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Right {
    /// An answer of one of these.
    Answer(u64),
    /// A refusal at once.
    Refused,
    /// No answer, in whatever way.
    NoAnswer,
}

impl State {
    pub fn right(&self, door: Door) -> Right {
        let only_local = match door {
            Door::ClusterIp => self.internal_local,
            Door::NodePort | Door::Balancer => self.external_local,
            Door::Loopback => false,
        };
        let set = if only_local { self.endpoints & LOCAL } else { self.endpoints };
        let shut_out = door == Door::Balancer && self.ranges == Ranges::Strangers;
        if !self.exists || shut_out {
            Right::NoAnswer
        } else if self.endpoints == 0 {
            Right::Refused
        } else if set == 0 {
            Right::NoAnswer
        } else {
            Right::Answer(set)
        }
    }

    fn random(random: &mut Random) -> Self {
        Self {
            exists: true,
            endpoints: random_set(random),
            internal_local: random.one_in(12),
            external_local: random.one_in(4),
            affinity: random.one_in(6),
            ranges: random_ranges(random),
        }
    }
}

fn random_ranges(random: &mut Random) -> Ranges {
    match random.below(8) {
        0 => Ranges::Strangers,
        1 | 2 => Ranges::Client,
        _ => Ranges::Everybody,
    }
}

/// Mostly few, sometimes none, sometimes many.
fn random_set(random: &mut Random) -> u64 {
    let wanted = match random.below(20) {
        0 | 1 => 0,
        2..=14 => 1 + random.below(4),
        15..=18 => 5 + random.below(12),
        _ => 17 + random.below(ENDPOINTS - 16),
    };
    let mut set = 0_u64;
    while (set.count_ones() as usize) < wanted {
        set |= 1 << random.below(ENDPOINTS);
    }
    set
}

/// A service, with all it ever was.
#[derive(Debug)]
pub struct Service {
    number: usize,
    /// The last one is what is or is to be.
    pub states: Vec<State>,
    /// The one that was the kernel's when it was last compared with this.
    pub settled: usize,
    /// The one before that.
    pub settled_before: usize,
}

impl Service {
    pub fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    /// This one as it is now, without what it was.
    pub fn copied(&self) -> Self {
        Self { number: self.number, states: vec![*self.now()], settled: 0, settled_before: 0 }
    }

    pub fn name(&self) -> String {
        format!("service-{}", self.number)
    }

    pub const fn has_node_port(&self) -> bool {
        self.number % 10 < 3
    }

    pub const fn has_balancer(&self) -> bool {
        self.number % 10 == 2
    }

    pub fn node_port(&self) -> u16 {
        u16::try_from(30_000 + self.number).unwrap()
    }

    pub fn cluster_ip(&self, family: usize) -> IpAddr {
        let [high, low] = u16::try_from(self.number + 256).unwrap().to_be_bytes();
        match family {
            0 => Ipv4Addr::new(10, 96, high, low).into(),
            _ => Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from_be_bytes([high, low])).into(),
        }
    }

    pub fn balancer_ip(&self, family: usize) -> IpAddr {
        let number = u8::try_from(self.number / 10 + 1).unwrap();
        match family {
            0 => Ipv4Addr::new(198, 51, 100, number).into(),
            _ => Ipv6Addr::new(0x2001, 0xdb8, 0x1b, 0, 0, 0, 0, number.into()).into(),
        }
    }

    /// Where a question is sent to go through a door.
    pub fn address(&self, door: Door, family: usize) -> std::net::SocketAddr {
        match door {
            Door::ClusterIp => (self.cluster_ip(family), 80).into(),
            Door::NodePort => {
                (NODE_IPS[family].parse::<IpAddr>().unwrap(), self.node_port()).into()
            }
            Door::Balancer => (self.balancer_ip(family), 80).into(),
            Door::Loopback if family == 0 => (Ipv4Addr::LOCALHOST, self.node_port()).into(),
            Door::Loopback => (Ipv6Addr::LOCALHOST, self.node_port()).into(),
        }
    }

    /// Changes something at random.
    pub fn change(&mut self, random: &mut Random) {
        let mut state = *self.now();
        match random.below(100) {
            _ if !state.exists => state = State::random(random),
            0..30 => state.endpoints |= 1 << random.below(ENDPOINTS),
            30..58 if state.endpoints != 0 => {
                let nth = random.below(state.endpoints.count_ones() as usize);
                let mut ones = (0..ENDPOINTS).filter(|one| state.endpoints & 1 << one != 0);
                state.endpoints &= !(1 << ones.nth(nth).unwrap());
            }
            30..75 => state.endpoints = random_set(random),
            75..82 => state.external_local = !state.external_local,
            82..85 => state.internal_local = !state.internal_local,
            85..90 => state.affinity = !state.affinity,
            90..95 => state.ranges = random_ranges(random),
            _ => state.exists = false,
        }
        self.states.push(state);
    }

    /// Its Service and EndpointSlices.
    pub fn manifest(&self) -> String {
        let state = self.now();
        [self.object(state), self.slice(state, 0), self.slice(state, 1)]
            .map(|object| format!("---\n{object}\n"))
            .concat()
    }

    fn object(&self, state: &State) -> Value {
        let ports = ["TCP", "UDP"].map(|protocol| {
            let mut port =
                json!({"name": protocol.to_lowercase(), "port": 80, "protocol": protocol});
            if self.has_node_port() {
                port["nodePort"] = json!(self.node_port());
            }
            port
        });
        let cluster_ips = [0, 1].map(|family| self.cluster_ip(family).to_string());
        let policy = |local| if local { "Local" } else { "Cluster" };
        let mut spec = json!({
            "type": "ClusterIP",
            "clusterIP": cluster_ips[0],
            "clusterIPs": cluster_ips,
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "internalTrafficPolicy": policy(state.internal_local),
            "sessionAffinity": if state.affinity { "ClientIP" } else { "None" },
            "ports": ports,
        });
        let mut status = json!({});
        if self.has_node_port() {
            spec["type"] = json!("NodePort");
            spec["externalTrafficPolicy"] = json!(policy(state.external_local));
        }
        if self.has_balancer() {
            let ingress = [0, 1]
                .map(|family| json!({"ip": self.balancer_ip(family).to_string(), "ipMode": "VIP"}));
            spec["type"] = json!("LoadBalancer");
            status = json!({"loadBalancer": {"ingress": ingress}});
            if state.ranges != Ranges::Everybody {
                spec["loadBalancerSourceRanges"] = json!(state.ranges.texts());
            }
        }
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name(), "namespace": "soak"},
            "spec": spec,
            "status": status,
        })
    }

    fn slice(&self, state: &State, family: usize) -> Value {
        let endpoints: Vec<Value> = (0..ENDPOINTS)
            .filter(|endpoint| state.endpoints & 1 << endpoint != 0)
            .map(|endpoint| {
                let node = if LOCAL & 1 << endpoint != 0 { NODE } else { "node-b" };
                json!({
                    "addresses": [endpoint_ip(endpoint, family).to_string()],
                    "nodeName": node,
                    "conditions": {"ready": true},
                })
            })
            .collect();
        let ports = ["TCP", "UDP"].map(|protocol| {
            json!({"name": protocol.to_lowercase(), "port": POD_PORT, "protocol": protocol})
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{}-{family}", self.name()),
                "namespace": "soak",
                "labels": {"kubernetes.io/service-name": self.name()},
            },
            "addressType": if family == 0 { "IPv4" } else { "IPv6" },
            "ports": ports,
            "endpoints": endpoints,
        })
    }
}

/// All services, as they are at first.
pub fn services(random: &mut Random) -> Vec<Service> {
    (0..SERVICES)
        .map(|number| Service {
            number,
            states: vec![State::random(random)],
            settled: 0,
            settled_before: 0,
        })
        .collect()
}
