//! Tables of selectors and what they take.

use serde_json::json;

use super::*;
use crate::resource::find_kind;

#[test]
fn label_selectors_take_what_upstream_takes() {
    let object = json!({"metadata": {"labels": {"app": "web", "n": "5", "a.b/c": ""}}});
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web", true),
        ("app = web , n=5", true),
        ("app!=web", false),
        ("missing!=web", true),
        ("app in (db, web)", true),
        ("app in (db)", false),
        ("app notin (db)", true),
        ("missing notin (db)", true),
        ("app notin (web)", false),
        ("app", true),
        ("!app", false),
        ("!missing", true),
        ("n>4", true),
        ("n>5", false),
        ("n<6", true),
        ("missing>1", false),
        ("a.b/c=", true),
        ("a.b/c in (,x)", true),
    ];
    for (text, expected) in cases {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.matches(&object), expected, "{text}");
        // What is printed is read back as the same selector.
        assert_eq!(LabelSelector::parse(&selector.to_string()).unwrap(), selector, "{text}");
    }
}

#[test]
fn broken_label_selectors_are_refused() {
    for text in
        ["app in", "app in (", "app in (a", "=a", "a b", "a=b,", "a=b c", "a>x", "-a=b", "a=-"]
    {
        let error = LabelSelector::parse(text).unwrap_err();
        assert_eq!(error.code, 400, "{text}");
        assert!(error.message.starts_with("unable to parse requirement: "), "{text}: {error}");
    }
}

#[test]
fn selectors_of_specs() {
    let spec = json!({
        "matchLabels": {"app": "web"},
        "matchExpressions": [
            {"key": "env", "operator": "In", "values": ["a", "b"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    });
    let selector = LabelSelector::from_spec(&spec).unwrap();
    assert_eq!(selector.to_string(), "app=web,env in (a,b),!old");
    assert!(LabelSelector::from_spec(&json!({})).unwrap().is_empty());
    assert_eq!(LabelSelector::from_spec(&json!(null)), None);
}

#[test]
fn field_selectors_take_what_the_kind_offers() {
    let pod = find_kind("", "Pod").unwrap();
    let object = json!({
        "metadata": {"name": "a", "namespace": "n"},
        "spec": {"nodeName": "node-1"},
        "status": {"phase": "Running"},
    });
    let cases = [
        ("", true),
        ("metadata.name=a", true),
        ("metadata.name==b", false),
        ("spec.nodeName=node-1,status.phase!=Failed", true),
        ("spec.nodeName!=", true),
        ("spec.hostNetwork=false", true),
        ("status.podIP=", true),
    ];
    for (text, expected) in cases {
        let selector = FieldSelector::parse(pod, text).unwrap();
        assert_eq!(selector.matches(&object), expected, "{text}");
    }
    assert_eq!(FieldSelector::parse(pod, "metadata.name=a").unwrap().name(), Some("a"));
    let escaped = FieldSelector::parse(pod, r"metadata.name=a\,b\=c\\").unwrap();
    assert_eq!(escaped.name(), Some(r"a,b=c\"));
}

#[test]
fn fields_that_cannot_be_selected_by_are_named() {
    let pod = find_kind("", "Pod").unwrap();
    let error = FieldSelector::parse(pod, "spec.foo=1").unwrap_err();
    assert_eq!(error.message, "field label not supported: spec.foo");
    assert!(FieldSelector::parse(pod, "nonsense").is_err());
    let node = find_kind("", "Node").unwrap();
    assert!(FieldSelector::parse(node, "metadata.namespace=x").is_err());
}
