//! Bodies are encoded with the types of `k8s-pb`, generated from upstream's own definitions, and must
//! read as the JSON the same client would have sent.

use k8s_pb::api::apps::v1 as apps;
use k8s_pb::api::authentication::v1 as authentication;
use k8s_pb::api::authorization::v1 as authorization;
use k8s_pb::api::core::v1 as core;
use k8s_pb::apimachinery::pkg::api::resource::Quantity;
use k8s_pb::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_pb::apimachinery::pkg::runtime::{TypeMeta, Unknown};
use k8s_pb::apimachinery::pkg::util::intstr::IntOrString;
use prost::Message as _;
use serde_json::{Value, json};

use super::decode;

fn body(api_version: &str, kind: &str, object: &impl prost::Message) -> Vec<u8> {
    let envelope = Unknown {
        type_meta: Some(TypeMeta {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
        }),
        raw: Some(object.encode_to_vec()),
        ..Unknown::default()
    };
    [b"k8s\0".to_vec(), envelope.encode_to_vec()].concat()
}

fn check(api_version: &str, kind: &str, object: &impl prost::Message, expected: Value) {
    let read = decode(&body(api_version, kind, object)).unwrap();
    assert_eq!(read, expected);
}

/// What Go writes for an object just made: every plain scalar, with its zero value.
fn named(name: &str) -> Option<meta::ObjectMeta> {
    Some(meta::ObjectMeta {
        name: Some(name.to_owned()),
        generate_name: Some(String::new()),
        namespace: Some(String::new()),
        uid: Some(String::new()),
        resource_version: Some(String::new()),
        generation: Some(0),
        creation_timestamp: Some(meta::Time { seconds: None, nanos: None }),
        ..meta::ObjectMeta::default()
    })
}

#[test]
fn reviews_say_what_they_ask() {
    let attributes = authorization::ResourceAttributes {
        verb: Some("get".to_owned()),
        resource: Some("pods".to_owned()),
        ..authorization::ResourceAttributes::default()
    };
    let spec = authorization::SubjectAccessReviewSpec {
        resource_attributes: Some(attributes),
        user: Some("alice".to_owned()),
        groups: vec!["team".to_owned()],
        extra: [("k".to_owned(), authorization::ExtraValue { items: vec!["v".to_owned()] })].into(),
        ..authorization::SubjectAccessReviewSpec::default()
    };
    check(
        "authorization.k8s.io/v1",
        "SubjectAccessReview",
        &authorization::SubjectAccessReview {
            spec: Some(spec),
            ..authorization::SubjectAccessReview::default()
        },
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "resourceAttributes": {"verb": "get", "resource": "pods"},
                "user": "alice",
                "groups": ["team"],
            },
        }),
    );
    let spec = authentication::TokenReviewSpec {
        token: Some("t".to_owned()),
        ..authentication::TokenReviewSpec::default()
    };
    check(
        "authentication.k8s.io/v1",
        "TokenReview",
        &authentication::TokenReview { spec: Some(spec), ..authentication::TokenReview::default() },
        json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": "t"},
        }),
    );
}

#[test]
fn a_namespace_has_no_zero_values_left() {
    check(
        "v1",
        "Namespace",
        &core::Namespace { metadata: named("n"), ..core::Namespace::default() },
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}}),
    );
}

#[test]
fn a_deployment_keeps_pointers_to_zero_and_loses_plain_zeros() {
    let container = core::Container {
        name: Some("c".to_owned()),
        image: Some("i:1".to_owned()),
        command: vec!["python".to_owned(), "train.py".to_owned()],
        ports: vec![core::ContainerPort {
            name: Some(String::new()),
            host_port: Some(0),
            container_port: Some(80),
            ..core::ContainerPort::default()
        }],
        resources: Some(core::ResourceRequirements {
            requests: [("cpu".to_owned(), Quantity { string: Some("100m".to_owned()) })].into(),
            ..core::ResourceRequirements::default()
        }),
        readiness_probe: Some(core::Probe {
            handler: Some(core::ProbeHandler {
                http_get: Some(core::HttpGetAction {
                    path: Some("/healthz".to_owned()),
                    port: Some(IntOrString {
                        r#type: Some(1),
                        int_val: Some(0),
                        str_val: Some("http".to_owned()),
                    }),
                    ..core::HttpGetAction::default()
                }),
                ..core::ProbeHandler::default()
            }),
            initial_delay_seconds: Some(0),
            period_seconds: Some(5),
            ..core::Probe::default()
        }),
        ..core::Container::default()
    };
    let volume = core::Volume {
        name: Some("scratch".to_owned()),
        volume_source: Some(core::VolumeSource {
            empty_dir: Some(core::EmptyDirVolumeSource::default()),
            ..core::VolumeSource::default()
        }),
    };
    let deployment = apps::Deployment {
        metadata: named("d"),
        spec: Some(apps::DeploymentSpec {
            replicas: Some(0),
            min_ready_seconds: Some(0),
            template: Some(core::PodTemplateSpec {
                metadata: None,
                spec: Some(core::PodSpec {
                    containers: vec![container],
                    volumes: vec![volume],
                    enable_service_links: Some(false),
                    host_network: Some(false),
                    ..core::PodSpec::default()
                }),
            }),
            ..apps::DeploymentSpec::default()
        }),
        status: None,
    };
    check(
        "apps/v1",
        "Deployment",
        &deployment,
        json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "d"},
            "spec": {
                "replicas": 0,
                "template": {"spec": {
                    "containers": [{
                        "name": "c",
                        "image": "i:1",
                        "command": ["python", "train.py"],
                        "ports": [{"containerPort": 80}],
                        "resources": {"requests": {"cpu": "100m"}},
                        "readinessProbe": {
                            "httpGet": {"path": "/healthz", "port": "http"},
                            "periodSeconds": 5,
                        },
                    }],
                    "volumes": [{"name": "scratch", "emptyDir": {}}],
                    "enableServiceLinks": false,
                }},
            },
        }),
    );
}

#[test]
fn bytes_become_base64_and_maps_keep_empty_values() {
    let secret = core::Secret {
        metadata: named("s"),
        data: [("password".to_owned(), b"\x00\xffhush".to_vec())].into(),
        string_data: [("empty".to_owned(), String::new())].into(),
        r#type: Some("Opaque".to_owned()),
        immutable: Some(false),
    };
    check(
        "v1",
        "Secret",
        &secret,
        json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s"},
            "data": {"password": "AP9odXNo"},
            "stringData": {"empty": ""},
            "type": "Opaque",
            "immutable": false,
        }),
    );
}

#[test]
fn times_are_rfc_3339() {
    let metadata = Some(meta::ObjectMeta {
        name: Some("e".to_owned()),
        creation_timestamp: Some(meta::Time { seconds: Some(1_700_000_000), nanos: Some(0) }),
        ..meta::ObjectMeta::default()
    });
    let event = core::Event {
        metadata,
        event_time: Some(meta::MicroTime { seconds: Some(1_700_000_000), nanos: Some(5_000) }),
        ..core::Event::default()
    };
    check(
        "v1",
        "Event",
        &event,
        json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": "e", "creationTimestamp": "2023-11-14T22:13:20Z"},
            "eventTime": "2023-11-14T22:13:20.000005Z",
        }),
    );
}

#[test]
fn options_of_a_delete_come_under_the_version_of_their_kind() {
    let options = meta::DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    check(
        "apps/v1",
        "DeleteOptions",
        &options,
        json!({"apiVersion": "apps/v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0}),
    );
}

#[test]
fn broken_bodies_are_refused_with_the_reason() {
    let whole =
        body("v1", "Namespace", &core::Namespace { metadata: named("n"), ..Default::default() });
    let cases: [(&[u8], &str); 4] = [
        (b"{}", "does not start with the magic bytes"),
        (&whole[..whole.len() - 1], "ends in the middle of a field"),
        (&body("v1", "Nonsense", &core::Namespace::default()), "no kind \"Nonsense\" is known"),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "wire format is broken"),
    ];
    for (bytes, reason) in cases {
        let message = decode(bytes).unwrap_err().to_string();
        assert!(message.contains(reason), "{message:?} should say {reason:?}");
    }
    // No prefix of a valid body may panic.
    for end in 0..whole.len() {
        let _ = decode(&whole[..end]);
    }
}
