//! The user's Service and Ingress through `--manifests`: proxy and ingress without any API server.
//! Network namespaces with the test server stand in for pods.

#![expect(clippy::unwrap_used, reason = "a failed step fails the test, with its words")]

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podium_tests::binaries::Binaries;
use podium_tests::cgroup::Cgroup;
use podium_tests::cluster::mount_bpf;
use podium_tests::fabric::{Fabric, node_address};
use podium_tests::machine;
use podium_tests::netns::Netns;
use podium_tests::process::{Launch, Process};
use podium_tests::wait::wait_until;
use podium_tests::workdir::Workdir;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);
const CLUSTER_IP: &str = "10.96.0.80";

/// What is wrong in a folder is told by name and keeps nothing else from working.
const BROKEN: [(&str, &str); 5] = [
    ("not-yaml", "kind: [Service"),
    (
        "two-ports",
        "apiVersion: v1\nkind: Service\nmetadata: {name: two-ports}\nspec:\n  clusterIP: 10.96.0.81\n  \
         selector: {a: b}\n  ports: [{name: a, port: 80}, {name: b, port: 80}]\n",
    ),
    (
        "no-address",
        "apiVersion: v1\nkind: Service\nmetadata: {name: no-address}\nspec:\n  clusterIP: nonsense\n  \
         ports: [{port: 80}]\n",
    ),
    (
        "wrong-type",
        "apiVersion: v1\nkind: Service\nmetadata: {name: wrong-type}\nspec: {ports: [{port: many}]}\n",
    ),
    (
        "wrong-slice",
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: wrong-slice\n  labels: \
         {kubernetes.io/service-name: ml-model-svc}\naddressType: IPv4\nports: [{name: \"\", port: 80}]\n\
         endpoints: [{addresses: [999.0.0.1]}]\n",
    ),
];

/// Two servers and a client in namespaces of their own.
struct Stage {
    servers: Vec<Process>,
    client: Netns,
    cgroup: Cgroup,
    manifests: PathBuf,
    workdir: Workdir,
    binaries: Binaries,
    _namespaces: Vec<Netns>,
}

impl Stage {
    fn set(name: &str) -> Self {
        machine::check().expect("this test needs the machine");
        let binaries = Binaries::from_env().unwrap();
        let dir = binaries.tests_dir().join(name);
        let workdir = Workdir::create(&dir, &format!("podium-test-{name}")).unwrap();
        let fabric = Fabric::create(&workdir).unwrap();
        let mut namespaces = Vec::new();
        let mut servers = Vec::new();
        for number in [1, 2] {
            let role = format!("server-{number}");
            let netns = fabric.join(&workdir, &role, node_address(number)).unwrap();
            let serving = Launch::new(&role, &binaries.static_testserver())
                .args(["serve", "--drain-ms", "0"])
                .env("HOSTNAME", &role)
                .inside(Some(netns.name()), None)
                .unwrap();
            servers.push(serving.spawn(&workdir).unwrap());
            namespaces.push(netns);
        }
        let client = fabric.join(&workdir, "client", node_address(3)).unwrap();
        namespaces.push(fabric.into_netns());
        let cgroup = Cgroup::create(&workdir, "node").unwrap();
        let manifests = workdir.path().join("manifests");
        fs::create_dir(&manifests).unwrap();
        Self { servers, client, cgroup, manifests, workdir, binaries, _namespaces: namespaces }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.manifests.join(name), text).unwrap();
    }

    fn endpoints(&self, service: &str, numbers: &[u8]) {
        let endpoints: String = numbers
            .iter()
            .map(|number| {
                format!("- addresses: [{}]\n  conditions: {{ready: true}}\n", node_address(*number))
            })
            .collect();
        let list = if endpoints.is_empty() {
            "endpoints: []\n".to_owned()
        } else {
            format!("endpoints:\n{endpoints}")
        };
        self.write(
            "slice.yaml",
            &format!(
                "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {service}-1\n  \
                 namespace: default\n  labels: {{kubernetes.io/service-name: {service}}}\n\
                 addressType: IPv4\nports:\n- {{name: \"\", port: 80, protocol: TCP}}\n{list}"
            ),
        );
    }

    fn start(&self, program: &str, args: &[&str], paths: &[&Path]) -> Process {
        Launch::new(program, &self.binaries.find(program).unwrap())
            .args(args)
            .args(paths)
            .inside(Some(self.client.name()), None)
            .unwrap()
            .spawn(&self.workdir)
            .unwrap()
    }

    /// Asks from inside the node's cgroup; the error has curl's exit code in it.
    fn get(&self, url: &str) -> Result<Value, String> {
        let text = Launch::new("curl", Path::new("curl"))
            .args(["--silent", "--show-error", "--fail", "--max-time", "2", url])
            .inside(Some(self.client.name()), Some(&self.cgroup))
            .and_then(Launch::output)
            .map_err(|error| format!("{error:#}"))?;
        serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
    }

    fn load(&self, url: &str, count: &str) -> Value {
        let text = Launch::new("load", &self.binaries.static_testserver())
            .args(["load", "--count", count, "--url", url])
            .inside(Some(self.client.name()), Some(&self.cgroup))
            .and_then(Launch::output)
            .unwrap();
        serde_json::from_str(&text).unwrap()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.servers.clear();
        podium_tests::down::down(self.workdir.path()).unwrap_or_else(|e| eprintln!("{e:#}"));
    }
}

#[test]
fn the_users_service_is_balanced_in_the_kernel() {
    let stage = Stage::set("service");
    let service = include_str!("../seeds/ml-model-svc.yaml");
    stage.write("service.yaml", &format!("{service}  clusterIP: {CLUSTER_IP}\n"));
    stage.endpoints("ml-model-svc", &[1, 2]);
    for (name, manifest) in BROKEN {
        stage.write(&format!("{name}.yaml"), manifest);
    }
    let pins = mount_bpf(&stage.workdir.path().join("bpf")).unwrap();
    let mut proxy = stage.start(
        "podium-proxy",
        &["run", "--node-name", "node"],
        &[
            Path::new("--manifests"),
            &stage.manifests,
            Path::new("--cgroup"),
            stage.cgroup.dir(),
            Path::new("--pin-dir"),
            &pins,
        ],
    );
    let url = format!("http://{CLUSTER_IP}/");
    wait_until("the service answers", LIMIT, || stage.get(&url))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", proxy.log_tail()));
    let seen = stage.load(&url, "200");
    assert_eq!(
        (&seen["failed"], seen["pods"].as_object().unwrap().len()),
        (&0.into(), 2),
        "{seen}"
    );

    let log = proxy.log();
    for (name, _) in BROKEN {
        assert!(log.contains(name), "nothing told about {name}:\n{log}");
    }

    // Killed, it leaves the service working; started again, it takes over and follows changes.
    proxy.kill().unwrap();
    let seen = stage.load(&url, "200");
    assert_eq!(seen["failed"], 0, "{seen}");
    let mut proxy = stage.start(
        "podium-proxy",
        &["run", "--node-name", "node"],
        &[
            Path::new("--manifests"),
            &stage.manifests,
            Path::new("--cgroup"),
            stage.cgroup.dir(),
            Path::new("--pin-dir"),
            &pins,
        ],
    );
    stage.endpoints("ml-model-svc", &[2]);
    wait_until("only the second server answers", LIMIT, || {
        proxy.check_alive().map_err(|error| format!("{error:#}"))?;
        let seen = stage.load(&url, "20");
        if seen["pods"]["server-2"] == 20 { Ok(()) } else { Err(seen.to_string()) }
    })
    .unwrap();

    // No endpoints: refused at once (curl's exit code 7), not a timeout.
    stage.endpoints("ml-model-svc", &[]);
    wait_until("connections are refused", LIMIT, || match stage.get(&url) {
        Err(error) if error.contains("exit status: 7") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}

#[test]
fn the_users_ingress_rewrites_and_balances() {
    let stage = Stage::set("ingress");
    stage.write("ingress.yaml", include_str!("../seeds/ml-product-ingress.yaml"));
    let service = include_str!("../seeds/ml-model-svc.yaml")
        .replace("ml-model-svc", "user-interface-svc")
        .replace("ml-model", "user-interface");
    stage.write("service.yaml", &format!("{service}  clusterIP: {CLUSTER_IP}\n"));
    stage.endpoints("user-interface-svc", &[1, 2]);
    let address = node_address(3);
    let ingress = stage.start(
        "podium-ingress",
        &[
            "run",
            "--ingress-class",
            "nginx",
            "--http-bind-address",
            &format!("{address}:80"),
            "--https-bind-address",
            &format!("{address}:443"),
            "--status-bind-address",
            &format!("{address}:10254"),
        ],
        &[Path::new("--manifests"), &stage.manifests],
    );
    let url = format!("http://{address}/app");
    let answer = wait_until("the ingress answers", LIMIT, || stage.get(&url))
        .unwrap_or_else(|error| panic!("{error:#}\n{}", ingress.log_tail()));
    assert_eq!(answer["path"], "/", "{answer}");
    let seen = stage.load(&url, "100");
    assert_eq!(
        (&seen["failed"], seen["pods"].as_object().unwrap().len()),
        (&0.into(), 2),
        "{seen}"
    );
    let error = stage.get(&format!("http://{address}/other")).unwrap_err();
    assert!(error.contains("404"), "{error}");
    stage.endpoints("user-interface-svc", &[]);
    wait_until("503 without endpoints", LIMIT, || match stage.get(&url) {
        Err(error) if error.contains("503") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .unwrap();
}
