//! The HTTP client of everything that speaks to a server, and its patience.

pub mod retry;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);

/// A client for `address`, made as `shape` says. Redirects are followed only where that says so: a request carries a key.
pub fn client(address: &Url, shape: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, reqwest::Error> {
    // The process has one provider of cryptography; whoever comes first sets it, and everyone sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder().user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        shape(builder.connect_timeout(CONNECT).redirect(Policy::none()))
    };
    let client = builder().build();
    // A server without TLS must not need a machine that has certificates.
    if client.is_err() && address.scheme() == "http" { builder().tls_certs_only([]).build() } else { client }
}

/// The innermost reason of an error, which is the one that tells; the address stays out of it.
pub fn reason(error: &reqwest::Error) -> String {
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

/// Why a body could not be read.
#[derive(Debug)]
pub enum BodyError {
    /// It broke off, for this reason.
    Broken(String),
    /// It is larger than it may be.
    TooLarge,
}

/// Reads a body of at most `most` bytes.
pub async fn read(mut response: Response, most: usize) -> Result<Vec<u8>, BodyError> {
    if response.content_length().is_some_and(|length| length > most as u64) {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > most => return Err(BodyError::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(e) => return Err(BodyError::Broken(reason(&e))),
        }
    }
}
