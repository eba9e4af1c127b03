//! What the files of configMap, secret, downwardAPI and projected volumes contain.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::Sources;
use crate::error::Error;
use crate::pod::env::Data;
use crate::pod::fields;

const MODE_DEFAULT: i32 = 0o644;

/// One file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    pub(crate) mode: u32,
}

/// Files by their path in the volume.
pub(crate) type Payload = BTreeMap<String, File>;

/// The content of a volume; `None` for a kind of volume that has none of ours.
pub(crate) async fn of_volume(
    volume: &Volume,
    sources: &Sources<'_>,
) -> Result<Option<Payload>, Error> {
    let mut payload = Payload::new();
    if let Some(source) = &volume.config_map {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let map = &sources.referenced.config_maps;
        let from = From { kind: "configmap", name: &source.name, optional: source.optional };
        from.add(&mut payload, map.get(&source.name), source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.secret {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        let name = source.secret_name.as_deref().unwrap_or_default();
        let from = From { kind: "secret", name, optional: source.optional };
        let map = &sources.referenced.secrets;
        from.add(&mut payload, map.get(name), source.items.as_deref(), mode)?;
    } else if let Some(source) = &volume.downward_api {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        add_downward(&mut payload, source.items.as_deref(), sources, mode)?;
    } else if let Some(source) = &volume.projected {
        let mode = source.default_mode.unwrap_or(MODE_DEFAULT);
        for projection in source.sources.iter().flatten() {
            add_projection(&mut payload, &volume.name, projection, sources, mode).await?;
        }
    } else {
        return Ok(None);
    }
    Ok(Some(payload))
}

async fn add_projection(
    payload: &mut Payload,
    volume: &str,
    projection: &VolumeProjection,
    sources: &Sources<'_>,
    mode: i32,
) -> Result<(), Error> {
    if let Some(source) = &projection.config_map {
        let from = From { kind: "configmap", name: &source.name, optional: source.optional };
        let map = &sources.referenced.config_maps;
        from.add(payload, map.get(&source.name), source.items.as_deref(), mode)
    } else if let Some(source) = &projection.secret {
        let from = From { kind: "secret", name: &source.name, optional: source.optional };
        let map = &sources.referenced.secrets;
        from.add(payload, map.get(&source.name), source.items.as_deref(), mode)
    } else if let Some(source) = &projection.downward_api {
        add_downward(payload, source.items.as_deref(), sources, mode)
    } else if let Some(source) = &projection.service_account_token {
        let token = sources.tokens.get(sources.pod, source).await?;
        let file = File { content: token.into_bytes(), mode: bits(mode) };
        payload.insert(source.path.clone(), file);
        Ok(())
    } else {
        Err(Error::Object(format!("volume {volume:?}: a projected source is not supported")))
    }
}

fn add_downward(
    payload: &mut Payload,
    items: Option<&[DownwardAPIVolumeFile]>,
    sources: &Sources<'_>,
    default_mode: i32,
) -> Result<(), Error> {
    for item in items.unwrap_or_default() {
        let text = if let Some(selector) = &item.field_ref {
            fields::field(sources.pod, sources.facts, &selector.field_path)?
        } else if let Some(selector) = &item.resource_field_ref {
            fields::resource(sources.pod, sources.facts, selector, None)?
        } else {
            continue;
        };
        let mode = bits(item.mode.unwrap_or(default_mode));
        payload.insert(item.path.clone(), File { content: text.into_bytes(), mode });
    }
    Ok(())
}

/// A ConfigMap or Secret as a source of files.
struct From<'a> {
    kind: &'static str,
    name: &'a str,
    optional: Option<bool>,
}

impl From<'_> {
    fn add(
        &self,
        payload: &mut Payload,
        data: Option<&Option<Data>>,
        items: Option<&[KeyToPath]>,
        default_mode: i32,
    ) -> Result<(), Error> {
        let (kind, name, optional) = (self.kind, self.name, self.optional == Some(true));
        let Some(data) = data.and_then(Option::as_ref) else {
            if optional {
                return Ok(());
            }
            return Err(Error::Object(format!("{kind} {name:?} not found")));
        };
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, content) in &data.entries {
                let file = File { content: content.clone(), mode: bits(default_mode) };
                payload.insert(key.clone(), file);
            }
            return Ok(());
        };
        for item in items {
            match data.entries.get(&item.key) {
                Some(content) => {
                    let mode = bits(item.mode.unwrap_or(default_mode));
                    let file = File { content: content.clone(), mode };
                    payload.insert(item.path.clone(), file);
                }
                None if optional => {}
                None => {
                    let key = &item.key;
                    return Err(Error::Object(format!(
                        "{kind} {name:?} references non-existent key: {key}"
                    )));
                }
            }
        }
        Ok(())
    }
}

fn bits(mode: i32) -> u32 {
    u32::try_from(mode).unwrap_or(0o644) & 0o777
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_choose_keys_paths_and_modes() {
        let entries = [("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let data = Some(Data { entries: entries.into() });
        let item =
            |key: &str, path: &str, mode| KeyToPath { key: key.into(), path: path.into(), mode };
        let render = |items: &[KeyToPath], optional: bool, data: &Option<Data>| {
            let mut payload = Payload::new();
            let from = From { kind: "configmap", name: "cm", optional: Some(optional) };
            match from.add(&mut payload, Some(data), Some(items), 0o644) {
                Err(error) => error.to_string(),
                Ok(()) => payload
                    .iter()
                    .map(|(path, file)| format!("{path}:{:o}", file.mode))
                    .collect::<Vec<_>>()
                    .join(" "),
            }
        };
        for (items, optional, data, expected) in [
            (vec![], false, &data, "a:644 b:644"),
            (vec![item("a", "x/y", Some(0o400))], false, &data, "x/y:400"),
            (vec![item("z", "z", None)], true, &data, ""),
            (
                vec![item("z", "z", None)],
                false,
                &data,
                "configmap \"cm\" references non-existent key: z",
            ),
            (vec![], false, &None, "configmap \"cm\" not found"),
            (vec![], true, &None, ""),
        ] {
            assert_eq!(render(&items, optional, data), expected);
        }
    }
}
