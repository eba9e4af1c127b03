//! TLS with clients: what is negotiated, and what becomes of their certificates.
//!
//! A host has a [`policy::TlsPolicy`], shared by all hosts with the same demands, and perhaps a
//! [`client_auth::ClientAuth`]. Handshakes never fail for a client's certificate: it is judged with the
//! first request, as nginx does it.

pub mod ciphers;
pub mod client_auth;
pub mod distinguished_name;
pub mod policy;
pub mod verify;
