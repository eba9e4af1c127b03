//! ServiceAccount tokens: JSON Web Tokens (RFC 7519) signed with ES256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use serde_json::{Value, json};

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("not a JSON web token")]
    Malformed,
    #[error("the signature is wrong")]
    Signature,
    #[error("the token has expired")]
    Expired,
    #[error("the token is for another audience")]
    Audience,
}

/// What a ServiceAccount token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) audiences: Vec<String>,
    pub(crate) issued_seconds: i64,
    pub(crate) expires_seconds: i64,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) uid: String,
    /// The object the token lives and dies with, as `kubernetes.io` claims: kind in lower case,
    /// name and uid.
    pub(crate) bound: Option<(String, String, String)>,
}

/// Signs and checks tokens with the cluster's key.
pub(crate) struct TokenKey {
    pair: EcdsaKeyPair,
    random: SystemRandom,
    issuer: String,
}

impl TokenKey {
    pub(crate) fn new(pkcs8: &[u8], issuer: String) -> Result<Self, String> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8, &random)
            .map_err(|error| error.to_string())?;
        Ok(Self { pair, random, issuer })
    }

    /// The audience of tokens meant for this API server.
    pub(crate) fn own_audience(&self) -> &str {
        &self.issuer
    }

    pub(crate) fn sign(&self, claims: &Claims) -> Result<String, String> {
        let mut private = json!({
            "namespace": claims.namespace,
            "serviceaccount": { "name": claims.name, "uid": claims.uid },
        });
        if let Some((kind, name, uid)) = &claims.bound {
            private[kind] = json!({ "name": name, "uid": uid });
        }
        let payload = json!({
            "iss": self.issuer,
            "aud": claims.audiences,
            "iat": claims.issued_seconds,
            "nbf": claims.issued_seconds,
            "exp": claims.expires_seconds,
            "sub": format!("system:serviceaccount:{}:{}", claims.namespace, claims.name),
            "kubernetes.io": private,
        });
        let header = json!({ "alg": "ES256", "typ": "JWT" });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&header), encode(&payload));
        let signature = self
            .pair
            .sign(&self.random, text.as_bytes())
            .map_err(|error| format!("sign token: {error}"))?;
        Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }

    /// The claims of a token that is genuine, unexpired and meant for this server.
    pub(crate) fn verify(&self, token: &str, now_seconds: i64) -> Result<Claims, TokenError> {
        let (text, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (_, payload) = text.split_once('.').ok_or(TokenError::Malformed)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        // The algorithm is ours, whatever the header claims.
        UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.pair.public_key().as_ref())
            .verify(text.as_bytes(), &signature)
            .map_err(|_| TokenError::Signature)?;
        let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| TokenError::Malformed)?;
        let payload: Value = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;
        let claims = parse(&payload).ok_or(TokenError::Malformed)?;
        if now_seconds >= claims.expires_seconds {
            return Err(TokenError::Expired);
        }
        if !claims.audiences.contains(&self.issuer) {
            return Err(TokenError::Audience);
        }
        Ok(claims)
    }
}

fn parse(payload: &Value) -> Option<Claims> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let private = &payload["kubernetes.io"];
    let account = &private["serviceaccount"];
    let bound = ["pod", "node", "secret"].into_iter().find_map(|kind| {
        let object = private.get(kind)?;
        Some((kind.to_owned(), text(&object["name"])?, text(&object["uid"])?))
    });
    Some(Claims {
        audiences: payload["aud"].as_array()?.iter().filter_map(text).collect(),
        issued_seconds: payload["iat"].as_i64()?,
        expires_seconds: payload["exp"].as_i64()?,
        namespace: text(&private["namespace"])?,
        name: text(&account["name"])?,
        uid: text(&account["uid"])?,
        bound,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> TokenKey {
        let der = rcgen::KeyPair::generate().unwrap().serialize_der();
        TokenKey::new(&der, "https://issuer".to_owned()).unwrap()
    }

    fn claims() -> Claims {
        Claims {
            audiences: vec!["https://issuer".to_owned()],
            issued_seconds: 1_000,
            expires_seconds: 2_000,
            namespace: "default".to_owned(),
            name: "robot".to_owned(),
            uid: "u-1".to_owned(),
            bound: Some(("pod".to_owned(), "p".to_owned(), "u-2".to_owned())),
        }
    }

    #[test]
    fn a_token_says_what_was_signed() {
        let key = key();
        let token = key.sign(&claims()).unwrap();
        assert_eq!(key.verify(&token, 1_500), Ok(claims()));
    }

    #[test]
    fn forged_expired_and_foreign_tokens_are_refused() {
        let key = key();
        let token = key.sign(&claims()).unwrap();
        assert_eq!(key.verify(&token, 2_000), Err(TokenError::Expired));
        assert_eq!(super::tests::key().verify(&token, 1_500), Err(TokenError::Signature));
        assert_eq!(key.verify("nonsense", 1_500), Err(TokenError::Malformed));
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let forged = format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode("{}"));
        assert_eq!(key.verify(&forged, 1_500), Err(TokenError::Signature));
        let foreign = Claims { audiences: vec!["vault".to_owned()], ..claims() };
        let token = key.sign(&foreign).unwrap();
        assert_eq!(key.verify(&token, 1_500), Err(TokenError::Audience));
    }
}
