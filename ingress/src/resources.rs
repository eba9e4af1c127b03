//! What settings name in Secrets and ConfigMaps, read and checked when the snapshot is built, so that a
//! request never waits for it and never sees it half.

pub mod authority;
mod custom_headers;
mod passwords;
pub mod upstream_tls;

use crate::annotations::Settings;
use crate::annotations::authentication::Authentication;
use crate::annotations::authentication::external::External;
use crate::annotations::values::Refusal;
use crate::objects::{ObjectKey, World};
use crate::options::Options;
use crate::rates::Clients;
use crate::tls::client_auth::ClientAuth;
use crate::translate::Policy;
use authority::Authority;
use http::{HeaderName, HeaderValue};
use passwords::PasswordGuard;
use std::sync::Arc;
use upstream_tls::EndpointTls;

/// The contents of the objects that the settings of an Ingress name, and what it has of its own.
#[derive(Debug, Default)]
pub struct Resources {
    /// Set in every answer of its locations.
    pub custom_headers: Vec<(HeaderName, HeaderValue)>,
    /// Who may log in with a password.
    pub passwords: Option<PasswordGuard>,
    /// Who is asked about each request.
    pub authority: Option<Arc<Authority>>,
    /// The clients it limits.
    pub clients: Option<Arc<Clients>>,
    /// What `auth-tls-*` ask of clients.
    pub client_auth: Option<Arc<ClientAuth>>,
    /// TLS with endpoints.
    pub upstream_tls: Option<Arc<EndpointTls>>,
}

impl Resources {
    /// There is nothing.
    pub fn is_empty(&self) -> bool {
        let Resources { custom_headers, passwords, authority, clients, client_auth, upstream_tls } =
            self;
        custom_headers.is_empty()
            && passwords.is_none()
            && authority.is_none()
            && clients.is_none()
            && client_auth.is_none()
            && upstream_tls.is_none()
    }

    /// Reads what the settings name. What is wrong comes with the annotation that named it.
    pub fn resolve(
        ingress: &ObjectKey,
        settings: &Settings,
        world: &World,
        policy: &Policy,
    ) -> (Resources, Vec<(&'static str, Refusal)>) {
        let mut resources = Resources::default();
        let mut refused = Vec::new();
        if let Some(config_map) = &settings.response.custom_headers {
            match custom_headers::resolve(config_map, world, &policy.options) {
                Ok(headers) => resources.custom_headers = headers,
                Err(refusal) => refused.push(("custom-headers", refusal)),
            }
        }
        if let Some(basic) = &settings.authentication.basic {
            let (guard, problems) = passwords::resolve(basic, world);
            refused.extend(problems.into_iter().map(|problem| ("auth-secret", problem)));
            resources.passwords = guard;
        }
        if let Some(external) = authority_of(&settings.authentication, &policy.options) {
            match Authority::resolve(external, world) {
                Ok(authority) => resources.authority = Some(Arc::new(authority)),
                Err(problem) => refused.push(("auth-proxy-set-headers", problem)),
            }
        }
        if settings.limits.by_client() {
            resources.clients = Some(policy.zones.clients_of(ingress));
        }
        let (client_auth, refusal) = ClientAuth::resolve(&settings.tls, world);
        resources.client_auth = client_auth;
        refused.extend(refusal);
        match upstream_tls::resolve(&settings.upstream.tls, world) {
            Ok(tls) => resources.upstream_tls = tls,
            Err(refusal) => refused.push(refusal),
        }
        (resources, refused)
    }
}

/// The Ingress's own authority, else that of the whole controller.
fn authority_of<'a>(own: &'a Authentication, options: &'a Options) -> Option<&'a External> {
    let global = || options.global_auth.authentication.as_ref()?.external.as_deref();
    own.external.as_deref().or_else(|| global().filter(|_| own.global))
}
