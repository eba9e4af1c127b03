//! The ConfigMap of `custom-headers`: headers set in every answer of a location.

use crate::annotations::values::Refusal;
use crate::objects::{ObjectKey, World};
use crate::options::Options;
use http::{HeaderName, HeaderValue};

/// Reads the ConfigMap. Anything wrong closes the location, as in ingress-nginx: such headers are often
/// there to protect.
pub fn resolve(
    config_map: &ObjectKey,
    world: &World,
    options: &Options,
) -> Result<Vec<(HeaderName, HeaderValue)>, Refusal> {
    let found = world.config_maps.get(config_map);
    let found =
        found.ok_or_else(|| Refusal::closes(format!("ConfigMap {config_map} does not exist")))?;
    let read = found.data.iter().flatten().map(|(name, value)| {
        let wrong = |why| Refusal::closes(format!("{why} in ConfigMap {config_map}: {name}"));
        let parsed = HeaderName::from_bytes(name.as_bytes()).ok();
        let parsed = parsed.filter(|_| name.bytes().all(is_name_byte));
        let parsed = parsed.ok_or_else(|| wrong("no name of a header"))?;
        if !options.headers.custom_allowed.contains(&parsed) {
            return Err(Refusal::closes(format!(
                "the header {name} of ConfigMap {config_map} is not among those of the option \
                 global-allowed-response-headers"
            )));
        }
        let good = !value.is_empty() && value.bytes().all(|b| b == b' ' || b.is_ascii_graphic());
        let value = HeaderValue::from_str(value).ok().filter(|_| good);
        Ok((parsed, value.ok_or_else(|| wrong("no value of a header"))?))
    });
    read.collect()
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Object;
    use serde_json::json;

    fn read(data: serde_json::Value) -> Result<Vec<String>, Refusal> {
        let mut world = World::default();
        let config_map = json!({"apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "extra", "namespace": "shop"}, "data": data});
        world.apply(Object::parse(config_map).unwrap().unwrap());
        let mut options = Options::default();
        options.headers.custom_allowed =
            vec![HeaderName::from_static("x-frame-options"), HeaderName::from_static("x-team")];
        let headers = resolve(&ObjectKey::new("shop", "extra"), &world, &options)?;
        Ok(headers.iter().map(|(name, value)| format!("{name}: {value:?}")).collect())
    }

    #[test]
    fn allowed_headers_only() {
        let good = read(json!({"X-Frame-Options": "DENY", "X-Team": "a \"b\" $c"})).unwrap();
        assert_eq!(good, [r#"x-frame-options: "DENY""#, r#"x-team: "a \"b\" $c""#]);
        for (data, why) in [
            (json!({"Server": "x"}), "global-allowed-response-headers"),
            (json!({"X Team": "x"}), "no name of a header"),
            (json!({"X-Team": "a\nSet-Cookie: b"}), "no value of a header"),
            (json!({"X-Team": ""}), "no value of a header"),
        ] {
            let refusal = read(data).unwrap_err();
            assert!(matches!(&refusal, Refusal::Closes(text) if text.contains(why)), "{refusal:?}");
        }
    }

    #[test]
    fn a_missing_config_map_closes() {
        let gone = resolve(&ObjectKey::new("shop", "gone"), &World::default(), &Options::default());
        assert!(matches!(gone, Err(Refusal::Closes(_))));
    }
}
