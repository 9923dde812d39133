//! `tidemill health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Client, Url};
use serde_json::Value;

use super::args::OutputArgs;
use crate::config::{Config, ConfigError};

/// How long the service may take to answer: longer than a busy machine needs, shorter than supervisors wait.
const TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Debug, Args)]
pub struct HealthArgs {
    /// The address of the service; by default `server.listen` of the configuration
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask only whether the process lives, not whether it is ready
    #[arg(long)]
    alive: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Asks `/readyz` or `/healthz`, and fails if the answer is not a success.
pub async fn run(config: Config, args: HealthArgs) -> Result<()> {
    let url = match &args.url {
        Some(url) => Url::parse(url).map_err(|e| ConfigError(format!("--url {url:?} is not an address: {e}")))?,
        None => own_address(&config.server.listen).await?,
    };
    let url = url.join(if args.alive { "/healthz" } else { "/readyz" }).context("the address cannot have a path")?;
    // The process has one provider of cryptography; the first caller installs it, and all callers install the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || Client::builder().timeout(TIMEOUT).no_proxy();
    let client = builder().build();
    // A container may have no certificates, and plain HTTP needs none.
    let client = if client.is_err() && url.scheme() == "http" { builder().tls_certs_only([]).build() } else { client }?;
    // With the token the answer has reasons. Only our own address may get the token.
    let token = config.server.token.as_ref().filter(|_| args.url.is_none());
    let request = token.into_iter().fold(client.get(url.clone()), |request, token| request.bearer_auth(token));
    let response = request.send().await.with_context(|| format!("no answer from {url}"))?;
    let status = response.status();
    let answer: Value = response.json().await.with_context(|| format!("{url} answers {status}, and the body is not JSON"))?;
    if args.output.json {
        say!("{answer}");
    }
    if !status.is_success() {
        bail!("{url} answers {status}: {}", problems(&answer));
    }
    if !args.output.json {
        say!("{}", answer["status"].as_str().unwrap_or("ok"));
    }
    Ok(())
}

/// The address at which this machine reaches a service that listens at `listen`.
async fn own_address(listen: &str) -> Result<Url> {
    let unusable =
        |why: String| ConfigError(format!("`server.listen` is {listen:?}, which is not an address: {why}; write host:port"));
    let address = tokio::net::lookup_host(listen).await.map_err(|e| unusable(e.to_string()))?.next();
    let mut address: SocketAddr = address.ok_or_else(|| unusable("it resolves to no address".into()))?;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    Ok(Url::parse(&format!("http://{address}"))?)
}

/// What is unavailable, as `broker: connection refused; …`.
fn problems(answer: &Value) -> String {
    let problems = answer["problems"].as_object().into_iter().flatten();
    let texts: Vec<String> = problems.map(|(name, why)| format!("{name}: {}", why.as_str().unwrap_or("unknown"))).collect();
    if texts.is_empty() { answer.to_string() } else { texts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_service_that_listens_everywhere_is_asked_on_loopback() {
        for (listen, expected) in
            [("0.0.0.0:8080", "http://127.0.0.1:8080/"), ("[::]:80", "http://[::1]/"), ("127.0.0.2:9", "http://127.0.0.2:9/")]
        {
            assert_eq!(own_address(listen).await.unwrap().as_str(), expected, "for {listen}");
        }
        assert!(own_address("nowhere").await.unwrap_err().to_string().contains("write host:port"));
    }

    #[test]
    fn what_is_out_of_order_is_said_in_a_line() {
        let answer = serde_json::json!({ "problems": { "broker": "gone", "model": "loading" } });
        assert_eq!(problems(&answer), "broker: gone; model: loading");
        assert_eq!(problems(&serde_json::json!({ "error": 1 })), "{\"error\":1}");
    }
}
