//! The HTTP client of everything in the engine that speaks to a server.

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Url};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// A builder of clients for `address`. Redirects are followed only where the caller says so: a request carries a key.
pub(super) fn client(address: &Url) -> ClientBuilder {
    // The process has one provider of cryptography; whoever comes first sets it, and everyone sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = Client::builder()
        .user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT)
        .redirect(Policy::none());
    // A server without TLS must not need a machine that has certificates.
    if address.scheme() == "http" { builder.tls_certs_only([]) } else { builder }
}

/// The innermost reason of an error, which is the one that tells; the address stays out of it.
pub(super) fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    match innermost.downcast_ref::<reqwest::Error>() {
        Some(_) if error.is_connect() => "cannot connect".into(),
        Some(_) => "the connection broke".into(),
        None => innermost.to_string(),
    }
}
