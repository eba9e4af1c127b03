//! Service account tokens for projected volumes: asked for through the TokenRequest API, bound to the
//! pod, kept in memory and renewed at four fifths of their life.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Pod, ServiceAccount, ServiceAccountTokenProjection};
use kube::api::{Api, PostParams};
use serde_json::json;

use crate::error::Error;
use crate::pod::PodExt;

const EXPIRATION_S_DEFAULT: i64 = 3600;

/// The tokens of one pod.
pub(crate) struct Tokens {
    client: kube::Client,
    held: Mutex<HashMap<String, Held>>,
}

#[derive(Clone)]
struct Held {
    token: String,
    renew_at: Timestamp,
}

impl Tokens {
    pub(crate) fn new(client: kube::Client) -> Self {
        Self { client, held: Mutex::default() }
    }

    /// A token that is good for a while.
    pub(crate) async fn get(
        &self,
        pod: &Pod,
        source: &ServiceAccountTokenProjection,
    ) -> Result<String, Error> {
        let audience = source.audience.clone().unwrap_or_default();
        let key = format!("{}\0{audience}", source.path);
        let now = Timestamp::now();
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(held) = held.filter(|held| now < held.renew_at) {
            return Ok(held.token);
        }
        let seconds = source.expiration_seconds.unwrap_or(EXPIRATION_S_DEFAULT);
        let token = self.request(pod, &audience, seconds).await?;
        let renew_at = now + SignedDuration::from_secs(seconds * 4 / 5);
        let mut tokens = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        tokens.insert(key, Held { token: token.clone(), renew_at });
        Ok(token)
    }

    async fn request(&self, pod: &Pod, audience: &str, seconds: i64) -> Result<String, Error> {
        let account = pod.podspec().service_account_name.as_deref();
        let account = account.filter(|name| !name.is_empty()).unwrap_or("default");
        let audiences: Vec<&str> = Some(audience).filter(|a| !a.is_empty()).into_iter().collect();
        let body = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "audiences": audiences,
                "expirationSeconds": seconds,
                "boundObjectRef":
                    {"apiVersion": "v1", "kind": "Pod", "name": pod.name(), "uid": pod.uid()},
            },
        });
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), pod.namespace());
        let failed = |source| Error::api("request a token of ServiceAccount", account, source);
        let answer: TokenRequest = api
            .create_subresource("token", account, &PostParams::default(), &body)
            .await
            .map_err(failed)?;
        answer.status.and_then(|status| status.token).ok_or_else(|| {
            Error::Object(format!("ServiceAccount {account}: no token in the answer"))
        })
    }
}
