//! IP families of a Service: `spec.ipFamilies` and `spec.ipFamilyPolicy` (KEP-563).

use std::net::IpAddr;

use podium_api::field::{self, Path};
use serde_json::{Value, json};

use crate::allocation::{Shared, addresses};

/// Fills in the families from the policy, the addresses asked for, and the cluster's ranges.
pub(super) fn fill(
    shared: &mut Shared,
    new: &mut Value,
    old: Option<&Value>,
    errors: &mut Vec<field::Error>,
) {
    let configured: Vec<&'static str> =
        shared.ranges.iter().map(super::AddressRange::family).collect();
    let spec = &mut new["spec"];
    if spec["type"] == "ExternalName" {
        return;
    }
    if let Some(old) = old {
        // A client that does not know the fields leaves them as they are.
        for field in ["ipFamilies", "ipFamilyPolicy"] {
            if spec.get(field).is_none_or(Value::is_null)
                && let Some(value) = old["spec"].get(field)
            {
                spec[field] = value.clone();
            }
        }
    }
    let path = Path::new("spec").child("ipFamilies");
    let mut families: Vec<String> = spec["ipFamilies"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .map(str::to_owned)
        .collect();
    for (index, family) in families.iter().enumerate() {
        if !configured.contains(&family.as_str()) {
            let detail = "not configured on this cluster";
            errors.push(field::Error::invalid(&path.index(index), json!(family), detail));
        }
    }
    let asked: Vec<&'static str> =
        addresses::of(spec).filter_map(|text| text.parse().ok()).map(family_of).collect();
    for (index, family) in asked.iter().enumerate() {
        match families.get(index) {
            None => families.push((*family).to_owned()),
            Some(listed) if listed == family => {}
            Some(listed) => {
                let detail =
                    format!("expected an {listed} value as indicated by `ipFamilies[{index}]`");
                let at = Path::new("spec").child("clusterIPs").index(index);
                let texts: Vec<&str> = addresses::of(spec).collect();
                errors.push(field::Error::invalid(&at, json!(texts), detail));
            }
        }
    }
    let two = families.len() > 1;
    let policy = spec["ipFamilyPolicy"].as_str().unwrap_or(if two {
        "RequireDualStack"
    } else {
        "SingleStack"
    });
    let policy = policy.to_owned();
    if policy == "RequireDualStack" && configured.len() < 2 {
        let at = Path::new("spec").child("ipFamilyPolicy");
        let detail = "this cluster is not configured for dual-stack services";
        errors.push(field::Error::invalid(&at, json!(policy), detail));
        return;
    }
    let headless = spec["clusterIP"] == "None";
    let selectorless = spec["selector"].as_object().is_none_or(serde_json::Map::is_empty);
    let wanted = if policy == "SingleStack" && !(headless && selectorless && two) { 1 } else { 2 };
    for family in configured {
        if families.len() < wanted && !families.iter().any(|listed| listed == family) {
            families.push(family.to_owned());
        }
    }
    families.truncate(wanted);
    spec["ipFamilies"] = json!(families);
    spec["ipFamilyPolicy"] = json!(policy);
}

fn family_of(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}
