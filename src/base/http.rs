//! The HTTP client for all requests to other servers.

pub mod retry;

use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response, Url};

/// How long connecting may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A client for `address`; `shape` adds settings. Redirects are not followed unless `shape` allows them, because requests carry
/// keys.
pub fn client(address: &Url, shape: impl Fn(ClientBuilder) -> ClientBuilder) -> Result<Client, reqwest::Error> {
    // The provider of cryptography is set once per process. All callers set the same one, so an error means that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = Client::builder().user_agent(concat!("tidemill/", env!("CARGO_PKG_VERSION")));
        shape(builder.connect_timeout(CONNECT).redirect(Policy::none()))
    };
    let client = builder().build();
    // A client for plain HTTP must also work on a machine without certificates.
    if client.is_err() && address.scheme() == "http" { builder().tls_certs_only([]).build() } else { client }
}

/// The innermost cause of an error, which is the most specific. The address is left out.
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
    /// The connection ended before the body did, for this reason.
    Broken(String),
    /// The body is larger than the limit.
    TooLarge,
}

/// Reads a body of at most `limit` bytes.
pub async fn read(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(BodyError::TooLarge);
    }
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > limit => return Err(BodyError::TooLarge),
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => return Ok(body),
            Err(e) => return Err(BodyError::Broken(reason(&e))),
        }
    }
}
