//! A running podium-ingress that many cases share, each with hosts of its own.
//!
//! A site is one host with Ingresses whose objects live in one file of the folder. Each writing of the file
//! brings a new path of a marker host; once that path answers, everything else in the file is in force.

use crate::certificates::object;
use crate::client::{Request, Tls};
use crate::harness::{Ingress, wait_until};
use crate::origin::Origin;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// A process with two Services of one endpoint each: `echo` and `other`.
pub struct World {
    pub podium: Ingress,
    pub echo: Origin,
    sites: AtomicUsize,
}

/// The world of all cases that need nothing of the whole controller. It ends with the last case that has
/// it, so that no process outlives the tests.
pub fn shared() -> Arc<World> {
    static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap();
    shared.upgrade().unwrap_or_else(|| {
        let world = Arc::new(World::start(&[]));
        *shared = Arc::downgrade(&world);
        world
    })
}

impl World {
    /// A process of its own, with these flags.
    pub fn start(flags: &[&str]) -> World {
        World::start_with_classes(&[&["--watch-ingress-without-class"], flags].concat())
    }

    /// The same, taking only Ingresses of its classes: those annotated with `nginx` unless flags say more.
    pub fn start_with_classes(flags: &[&str]) -> World {
        let (echo, other) = (Origin::start("echo"), Origin::start("other"));
        let all = [&echo, &other, &Origin::start("marker")];
        let services = all.map(|origin| service(&origin.name, &[origin])).join("---\n");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("services.yaml"), services).unwrap();
        let path = folder.path().to_str().unwrap().to_string();
        let common = ["--ingress-class", "nginx", "--manifests", &path];
        let podium = Ingress::start_as(folder, &[&common, flags].concat(), &[]);
        World { podium, echo, sites: AtomicUsize::new(0) }
    }

    /// A process of its own with these options in its ConfigMap.
    pub fn configured(options: &[(&str, &str)]) -> World {
        World::configured_with(options, &[])
    }

    /// The same, with flags and more objects in the file of the ConfigMap.
    pub fn configured_with(options: &[(&str, &str)], flags: &[&str]) -> World {
        let world = World::start(&[&["--configmap", "default/options"], flags].concat());
        world.configure(options, "");
        world
    }

    /// Replaces the ConfigMap, with more objects beside it, and waits until that is in force.
    pub fn configure(&self, options: &[(&str, &str)], beside: &str) {
        let options = object("ConfigMap", "options", "data", options);
        self.put("options", &format!("{options}\n---\n{beside}"));
    }

    /// Writes a file and waits until it is in force.
    pub fn put(&self, name: &str, objects: &str) {
        let revision = self.sites.fetch_add(1, Ordering::SeqCst);
        let host = format!("{name}.marker.test");
        let path = format!("/{revision}");
        let open = [
            ("enable-global-auth", "false"),
            ("force-ssl-redirect", "false"),
            ("whitelist-source-range", "0.0.0.0/0"),
        ];
        let marker = Sheet::new("marker").set(&open).path(&path, "Exact", "marker").plain();
        let marker = marker.to_yaml(&format!("{name}-marker"), &host, 0);
        self.podium.write(&format!("{name}.yaml"), &format!("{objects}\n---\n{marker}"));
        wait_until(&format!("{name} is in force"), || {
            let asked = Request::new(self.podium.http, "GET", &host, &path);
            // With `use-proxy-protocol` only the second is answered.
            let proxied = asked.clone().preface("PROXY UNKNOWN\r\n");
            let reply = asked.try_send().or_else(|_| proxied.try_send());
            reply.is_ok_and(|reply| reply.status == 200 && reply.backend() == "marker")
        });
    }

    /// A new host without Ingresses.
    pub fn new_site(self: &Arc<World>) -> Site {
        let number = self.sites.fetch_add(1, Ordering::SeqCst);
        Site {
            world: self.clone(),
            host: format!("h{number}.test"),
            name: format!("h{number}"),
            sheets: RefCell::default(),
            objects: RefCell::default(),
        }
    }

    /// A new host that sends everything to `echo`, with these annotations.
    pub fn site(self: &Arc<World>, annotations: &[(&str, &str)]) -> Site {
        let site = self.new_site();
        site.put(Sheet::new("web").set(annotations).path("/", "Prefix", "echo"));
        site
    }

    /// A request that belongs to no site.
    pub fn get(&self, host: &str, target: &str) -> Request {
        Request::new(self.podium.http, "GET", host, target)
    }
}

/// A site in the shared world, sending everything to `echo`, with these annotations.
pub fn site(annotations: &[(&str, &str)]) -> Site {
    shared().site(annotations)
}

/// One Ingress of a site.
#[derive(Clone)]
pub struct Sheet {
    name: String,
    annotations: Map<String, Value>,
    paths: Vec<Value>,
    spec: Map<String, Value>,
    tls: Option<String>,
}

impl Sheet {
    pub fn new(name: &str) -> Sheet {
        Sheet {
            name: name.into(),
            annotations: Map::new(),
            paths: Vec::new(),
            spec: Map::new(),
            tls: None,
        }
    }

    /// Annotations, without the prefix of ingress-nginx.
    pub fn set(mut self, annotations: &[(&str, &str)]) -> Sheet {
        for (key, value) in annotations {
            self.annotations.insert(format!("{PREFIX}{key}"), json!(value));
        }
        self
    }

    /// An annotation as it is.
    pub fn annotate(mut self, key: &str, value: &str) -> Sheet {
        self.annotations.insert(key.into(), json!(value));
        self
    }

    /// The class annotation of the controller under test.
    fn plain(self) -> Sheet {
        self.annotate("kubernetes.io/ingress.class", "nginx")
    }

    pub fn path(self, path: &str, path_type: &str, service: &str) -> Sheet {
        self.backend(path, path_type, json!({"service": {"name": service, "port": {"number": 80}}}))
    }

    pub fn backend(mut self, path: &str, path_type: &str, backend: Value) -> Sheet {
        self.paths.push(json!({"path": path, "pathType": path_type, "backend": backend}));
        self
    }

    /// TLS for the site's host from a Secret.
    pub fn tls(mut self, secret: &str) -> Sheet {
        self.tls = Some(secret.into());
        self
    }

    /// A field of the spec.
    pub fn spec(mut self, key: &str, value: Value) -> Sheet {
        self.spec.insert(key.into(), value);
        self
    }

    /// `defaultBackend` of the spec.
    pub fn default_backend(self, service: &str) -> Sheet {
        self.spec("defaultBackend", json!({"service": {"name": service, "port": {"number": 80}}}))
    }

    /// As a manifest; later ages are younger. An empty host is left out, and so is a rule without paths
    /// unless it has a host.
    pub fn to_yaml(&self, name: &str, host: &str, age: usize) -> String {
        let mut spec = self.spec.clone();
        let mut rule = Map::new();
        if !host.is_empty() {
            rule.insert("host".into(), json!(host));
        }
        if !self.paths.is_empty() {
            rule.insert("http".into(), json!({"paths": self.paths}));
        }
        if !rule.is_empty() && !spec.contains_key("rules") {
            spec.insert("rules".into(), json!([rule]));
        }
        if let Some(secret) = &self.tls {
            let hosts: &[&str] = if host.is_empty() { &[] } else { &[host] };
            spec.insert("tls".into(), json!([{"hosts": hosts, "secretName": secret}]));
        }
        let created = format!("2026-01-01T00:{:02}:{:02}Z", age / 60, age % 60);
        json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {
                "name": name, "annotations": self.annotations, "creationTimestamp": created
            },
            "spec": spec,
        })
        .to_string()
    }
}

/// One host with its Ingresses.
pub struct Site {
    pub world: Arc<World>,
    pub host: String,
    name: String,
    sheets: RefCell<Vec<Sheet>>,
    objects: RefCell<Vec<(String, String)>>,
}

impl Site {
    /// Adds an Ingress, or replaces that of the same name, and waits until that is in force.
    pub fn put(&self, sheet: Sheet) {
        let mut sheets = self.sheets.borrow_mut();
        match sheets.iter_mut().find(|old| old.name == sheet.name) {
            Some(old) => *old = sheet,
            None => sheets.push(sheet),
        }
        drop(sheets);
        self.write();
    }

    /// Adds another object, or replaces that of the same name, in force with the next Ingress that is put.
    pub fn with(&self, name: &str, manifest: String) -> &Site {
        let mut objects = self.objects.borrow_mut();
        objects.retain(|(old, _)| old != name);
        objects.push((name.into(), manifest));
        drop(objects);
        self
    }

    pub fn without(&self, name: &str) -> &Site {
        self.objects.borrow_mut().retain(|(old, _)| old != name);
        self
    }

    /// Writes everything and waits until it is in force.
    pub fn write(&self) {
        let sheets = self.sheets.borrow();
        let ingresses = sheets.iter().enumerate().map(|(age, sheet)| {
            sheet.to_yaml(&format!("{}-{}", self.name, sheet.name), &self.host, age)
        });
        let objects: Vec<String> =
            self.objects.borrow().iter().map(|(_, text)| text.clone()).chain(ingresses).collect();
        self.world.put(&self.name, &objects.join("\n---\n"));
    }

    /// A name for an object that no other site has.
    pub fn own(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }

    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.world.podium.http, method, &self.host, target)
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    /// Over TLS, asking for the certificate of the site's host.
    pub fn https(&self, target: &str) -> Request {
        let tls = Tls { server_name: self.host.clone(), ..Tls::default() };
        self.get(target).address(self.world.podium.https).tls(tls)
    }
}

/// A Service of namespace `default` with one slice for each endpoint.
pub fn service(name: &str, origins: &[&Origin]) -> String {
    let mut out = vec![
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
               "spec": {"ports": [{"port": 80}]}})
        .to_string(),
    ];
    for origin in origins {
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{name}-{}", origin.address.port()),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"port": origin.address.port()}],
            "endpoints": [{"addresses": [origin.address.ip().to_string()]}],
        });
        out.push(slice.to_string());
    }
    out.join("\n---\n") + "\n"
}
