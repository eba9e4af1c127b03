//! The command line of ingress-nginx in terms of ours, so that the arguments of its container go on
//! working: flags with the same meaning are taken, what has no meaning here is left out with a warning, and
//! what would be missed is refused. Flags that neither knows are errors, as ever.

/// What becomes of a flag of ingress-nginx.
#[derive(Clone, Copy)]
enum Meaning {
    /// A switch of ours of the same name, where ingress-nginx may say `=false`.
    Switch,
    /// It is on unless told otherwise; this flag of ours switches it off.
    Unless(&'static str),
    /// A port, as this flag of ours with an address.
    Port(&'static str),
    /// This flag of ours takes the same value.
    Renamed(&'static str),
    /// A switch without a meaning here; why.
    IgnoredSwitch(&'static str),
    /// A value without a meaning here; why.
    IgnoredValue(&'static str),
    /// Its users would miss it; what to do instead. An empty value is what there is.
    RefusedValue(&'static str),
    /// The same for any value but this one.
    Only(&'static str, &'static str),
}

use Meaning::{IgnoredSwitch, IgnoredValue, Only, Port, RefusedValue, Renamed, Switch, Unless};

const NGINX: &str = "there is no nginx here";
const WEBHOOK: &str =
    "there is no admission webhook: wrong objects harm only themselves and get Events";
const STREAM: &str =
    "TCP and UDP services are not proxied here: use a Service of type LoadBalancer or NodePort";
const BUCKETS: &str = "buckets are the defaults of ingress-nginx";
const KLOG: &str = "the log's level is set by the environment variable RUST_LOG";
const GEOIP: &str = "there is no GeoIP database here";

const FLAGS: &[(&str, Meaning)] = &[
    ("watch-ingress-without-class", Switch),
    ("enable-ssl-passthrough", Switch),
    ("ingress-class-by-name", Switch),
    ("disable-catch-all", Switch),
    ("disable-svc-external-name", Switch),
    ("disable-leader-election", Switch),
    ("report-node-internal-ip-address", Switch),
    ("disable-sync-events", Switch),
    ("update-status", Unless("--no-update-status")),
    ("update-status-on-shutdown", Unless("--no-update-status-on-shutdown")),
    ("http-port", Port("--http-bind-address")),
    ("https-port", Port("--https-bind-address")),
    ("healthz-port", Port("--status-bind-address")),
    ("shutdown-grace-period", Renamed("--shutdown-delay")),
    ("enable-metrics", IgnoredSwitch("metrics are always there")),
    ("metrics-per-host", IgnoredSwitch("metrics are per host of a rule")),
    ("metrics-per-undefined-host", IgnoredSwitch("clients make no series")),
    ("profiling", IgnoredSwitch("there is no profiler in the process")),
    ("profiler-port", IgnoredValue("there is no profiler in the process")),
    ("profiler-address", IgnoredValue("there is no profiler in the process")),
    ("enable-annotation-validation", IgnoredSwitch("values of annotations are always checked")),
    ("deep-inspect", IgnoredSwitch("nothing an Ingress says reaches a configuration file")),
    ("enable-ssl-chain-completion", IgnoredSwitch("put the whole chain into the Secret")),
    ("disable-full-test", IgnoredSwitch(WEBHOOK)),
    ("validating-webhook", IgnoredValue(WEBHOOK)),
    ("validating-webhook-certificate", IgnoredValue(WEBHOOK)),
    ("validating-webhook-key", IgnoredValue(WEBHOOK)),
    ("sync-period", IgnoredValue("objects are watched; nothing is read again by time")),
    ("sync-rate-limit", IgnoredValue("changes take effect as they come")),
    ("status-update-interval", IgnoredValue("statuses are compared every minute")),
    ("dynamic-configuration-retries", IgnoredValue(NGINX)),
    ("health-check-timeout", IgnoredValue(NGINX)),
    ("status-port", IgnoredValue(NGINX)),
    ("stream-port", IgnoredValue(NGINX)),
    ("default-server-port", IgnoredValue(NGINX)),
    ("ssl-passthrough-proxy-port", IgnoredValue(NGINX)),
    ("internal-logger-address", IgnoredValue(NGINX)),
    ("monitor-max-batch-size", IgnoredValue(NGINX)),
    ("post-shutdown-grace-period", IgnoredValue("the process ends when its connections have")),
    ("time-buckets", IgnoredValue(BUCKETS)),
    ("length-buckets", IgnoredValue(BUCKETS)),
    ("size-buckets", IgnoredValue(BUCKETS)),
    ("bucket-factor", IgnoredValue(BUCKETS)),
    ("max-buckets", IgnoredValue(BUCKETS)),
    ("exclude-socket-metrics", IgnoredValue("all metrics cost next to nothing")),
    ("report-status-classes", IgnoredSwitch("metrics have whole statuses")),
    ("enable-topology-aware-routing", IgnoredSwitch("all ready endpoints are used")),
    ("maxmind-mirror", IgnoredValue(GEOIP)),
    ("maxmind-license-key", IgnoredValue(GEOIP)),
    ("maxmind-edition-ids", IgnoredValue(GEOIP)),
    ("maxmind-retries-count", IgnoredValue(GEOIP)),
    ("maxmind-retries-timeout", IgnoredValue(GEOIP)),
    ("v", IgnoredValue(KLOG)),
    ("vmodule", IgnoredValue(KLOG)),
    ("stderrthreshold", IgnoredValue(KLOG)),
    ("logtostderr", IgnoredSwitch(KLOG)),
    ("alsologtostderr", IgnoredSwitch(KLOG)),
    ("tcp-services-configmap", RefusedValue(STREAM)),
    ("udp-services-configmap", RefusedValue(STREAM)),
    ("watch-namespace-selector", RefusedValue("name one namespace with --watch-namespace")),
    ("apiserver-host", RefusedValue("name the API server in a file for --kubeconfig")),
    ("certificate-authority", RefusedValue("name the authority in a file for --kubeconfig")),
    ("healthz-host", RefusedValue("name address and port with --status-bind-address")),
    ("health-check-path", Only("/healthz", "health is told at /healthz, /readyz and /livez")),
    (
        "annotations-prefix",
        Only(
            "nginx.ingress.kubernetes.io",
            "annotations have the prefix nginx.ingress.kubernetes.io",
        ),
    ),
];

/// Our arguments, and what is to be said about the ones left out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Translated {
    /// For our own parser.
    pub arguments: Vec<String>,
    /// What has no effect, one sentence each.
    pub warnings: Vec<String>,
}

/// Translates the arguments after the program's name. Those of other commands than `run` stay as they are.
pub fn translate(arguments: Vec<String>) -> Result<Translated, String> {
    let mut rest = arguments.into_iter().peekable();
    // The image of ingress-nginx names its program among the arguments.
    rest.next_if(|first| first.ends_with("nginx-ingress-controller"));
    let mut translated = Translated::default();
    match rest.peek().map(String::as_str) {
        Some("run") => translated.arguments.extend(rest.next()),
        Some(first) if first.starts_with('-') && !is_about_the_program(first) => {
            translated.arguments.push("run".into());
        }
        _ => {
            translated.arguments.extend(rest);
            return Ok(translated);
        }
    }
    while let Some(argument) = rest.next() {
        let (name, value) = match argument.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (argument.as_str(), None),
        };
        let short = name.strip_prefix("--").or_else(|| name.strip_prefix('-'));
        let known = short.and_then(|name| FLAGS.iter().find(|(flag, _)| *flag == name));
        match known {
            None => translated.arguments.push(argument),
            Some((flag, meaning)) => {
                let takes_value = matches!(
                    meaning,
                    Port(_) | Renamed(_) | IgnoredValue(_) | RefusedValue(_) | Only(..)
                );
                let value = if takes_value { value.or_else(|| rest.next()) } else { value };
                translated.take(flag, *meaning, value)?;
            }
        }
    }
    Ok(translated)
}

fn is_about_the_program(argument: &str) -> bool {
    matches!(argument, "-h" | "--help" | "-V" | "--version")
}

impl Translated {
    fn take(&mut self, flag: &str, meaning: Meaning, value: Option<String>) -> Result<(), String> {
        let on = match value.as_deref() {
            None | Some("true" | "1" | "t") => true,
            Some("false" | "0" | "f" | "") => false,
            Some(_) => true,
        };
        let given = || value.clone().ok_or_else(|| format!("--{flag} wants a value"));
        match meaning {
            Switch if on => self.arguments.push(format!("--{flag}")),
            Unless(ours) if !on => self.arguments.push(ours.into()),
            Switch | Unless(_) => {}
            Port(ours) => {
                let port = given()?;
                let _: u16 = port.parse().map_err(|_| format!("--{flag} wants a port"))?;
                self.arguments.extend([ours.into(), format!("0.0.0.0:{port}")]);
            }
            Renamed(ours) => self.arguments.extend([ours.into(), given()?]),
            IgnoredSwitch(why) | IgnoredValue(why) => {
                self.warnings.push(format!("--{flag} has no effect: {why}"));
            }
            RefusedValue(instead) if !given()?.is_empty() => {
                return Err(format!("--{flag}: {instead}"));
            }
            Only(value, instead) if given()? != value => {
                return Err(format!("--{flag}: {instead}"));
            }
            RefusedValue(_) | Only(..) => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn arguments_of_a_container_of_ingress_nginx_are_ours() {
        for (theirs, ours, warnings) in [
            (
                "/nginx-ingress-controller --publish-service=ns/front --election-id=lead \
                 --controller-class=k8s.io/ingress-nginx --ingress-class=nginx --configmap=ns/c \
                 --validating-webhook=:8443 --validating-webhook-certificate=/c --enable-metrics=false",
                "run --publish-service=ns/front --election-id=lead \
                 --controller-class=k8s.io/ingress-nginx --ingress-class=nginx --configmap=ns/c",
                3,
            ),
            (
                "--watch-ingress-without-class=true --enable-ssl-passthrough --update-status=false",
                "run --watch-ingress-without-class --enable-ssl-passthrough --no-update-status",
                0,
            ),
            (
                "run --http-port 8080 --healthz-port=10255 --watch-ingress-without-class=false -v 2",
                "run --http-bind-address 0.0.0.0:8080 --status-bind-address 0.0.0.0:10255",
                1,
            ),
            (
                "--unicorns --tcp-services-configmap= --health-check-path=/healthz",
                "run --unicorns",
                0,
            ),
            ("check --http-port a", "check --http-port a", 0),
            ("--version", "--version", 0),
            ("", "", 0),
        ] {
            let translated = translate(words(theirs)).unwrap();
            assert_eq!(translated.arguments, words(ours), "{theirs}");
            assert_eq!(translated.warnings.len(), warnings, "{:?}", translated.warnings);
        }
    }

    #[test]
    fn what_would_be_missed_is_refused() {
        for (theirs, says) in [
            ("--tcp-services-configmap=ns/tcp", "LoadBalancer"),
            ("--watch-namespace-selector=a=b", "--watch-namespace"),
            ("--annotations-prefix=example.com", "have the prefix"),
            ("--http-port=http", "wants a port"),
            ("--http-port", "wants a value"),
        ] {
            let why = translate(words(theirs)).unwrap_err();
            assert!(why.contains(says), "{theirs}: {why}");
        }
    }
}
