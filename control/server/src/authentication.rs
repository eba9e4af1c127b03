//! From credentials to an [`Identity`]: client certificates, static tokens, ServiceAccount tokens.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use podium_store::Store;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::identity::Identity;
use crate::keys;
use crate::token::{Claims, TokenKey};

/// Knows all ways to prove an identity but the client certificate, which TLS has checked.
pub(crate) struct Authenticator {
    static_tokens: HashMap<String, Identity>,
    key: Arc<TokenKey>,
    store: Arc<dyn Store>,
}

impl Authenticator {
    pub(crate) fn new(
        static_tokens: HashMap<String, Identity>,
        key: Arc<TokenKey>,
        store: Arc<dyn Store>,
    ) -> Self {
        Self { static_tokens, key, store }
    }

    /// The user a bearer token stands for; `None` when it stands for nobody.
    pub(crate) async fn bearer(&self, token: &str) -> Option<Identity> {
        if let Some(identity) = self.static_tokens.get(token) {
            return Some(identity.clone());
        }
        let now_seconds = jiff::Timestamp::now().as_second();
        match self.key.verify(token, now_seconds) {
            Ok(claims) if self.lives(&claims).await => Some(service_account(&claims)),
            Ok(claims) => {
                tracing::debug!(
                    namespace = claims.namespace,
                    name = claims.name,
                    "token of a ServiceAccount or object that is gone"
                );
                None
            }
            Err(error) => {
                tracing::debug!(%error, "bearer token refused");
                None
            }
        }
    }

    /// A token dies with its ServiceAccount and with the object it is bound to.
    async fn lives(&self, claims: &Claims) -> bool {
        let account = keys::object("", "serviceaccounts", &claims.namespace, &claims.name);
        if !self.has(&account, &claims.uid).await {
            return false;
        }
        match &claims.bound {
            None => true,
            Some((kind, name, uid)) => {
                let namespace = if kind == "node" { "" } else { &claims.namespace };
                self.has(&keys::object("", &format!("{kind}s"), namespace, name), uid).await
            }
        }
    }

    async fn has(&self, key: &str, uid: &str) -> bool {
        let found = self.store.get(key).await;
        matches!(found, Ok(Some(object)) if object.value["metadata"]["uid"] == *uid)
    }
}

fn service_account(claims: &Claims) -> Identity {
    let user = format!("system:serviceaccount:{}:{}", claims.namespace, claims.name);
    let groups = [
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{}", claims.namespace),
    ];
    let mut identity = Identity::new(user, groups);
    identity.uid.clone_from(&claims.uid);
    if let Some((kind, name, uid)) = &claims.bound {
        let extra = &mut identity.extra;
        extra.insert(format!("authentication.kubernetes.io/{kind}-name"), vec![name.clone()]);
        extra.insert(format!("authentication.kubernetes.io/{kind}-uid"), vec![uid.clone()]);
    }
    identity
}

/// The user a client certificate names: common name and organizations.
pub(crate) fn certificate_identity(der: &[u8]) -> Option<Identity> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let subject = certificate.subject();
    let text = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().ok().map(str::to_owned)
    };
    let user = subject.iter_common_name().next().and_then(text)?;
    Some(Identity::new(user, subject.iter_organization().filter_map(text)))
}

/// Reads a token file: lines of `token,user,uid` with an optional quoted list of groups.
pub(crate) fn read_token_file(path: &Path) -> Result<HashMap<String, Identity>, String> {
    let content =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse_token_file(&content).map_err(|reason| format!("{}: {reason}", path.display()))
}

fn parse_token_file(content: &str) -> Result<HashMap<String, Identity>, String> {
    let mut tokens = HashMap::new();
    for (index, line) in content.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mut fields = line.splitn(4, ',').map(str::trim);
        let (Some(token), Some(user), Some(uid)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(format!("line {}: want token,user,uid[,\"groups\"]", index + 1));
        };
        if token.is_empty() || user.is_empty() {
            return Err(format!("line {}: token and user must not be empty", index + 1));
        }
        let groups = fields.next().unwrap_or_default().trim_matches('"');
        let groups = groups.split(',').map(str::trim).filter(|group| !group.is_empty());
        let mut identity = Identity::new(user, groups.map(str::to_owned));
        identity.uid = uid.to_owned();
        tokens.insert(token.to_owned(), identity);
    }
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_files_hold_groups_and_comments() {
        let tokens = parse_token_file("# ours\nt1,ann,1,\"a,b\"\n\nt2,bob,2\n").unwrap();
        assert_eq!(tokens["t1"].groups, ["a", "b", "system:authenticated"]);
        assert_eq!(tokens["t2"].user, "bob");
        assert!(parse_token_file("t1,ann\n").unwrap_err().starts_with("line 1"));
    }
}
