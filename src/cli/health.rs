//! `tidemill health`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use reqwest::{Client, Url};
use serde_json::Value;

use crate::config::{Config, ConfigError};

/// How long an answer may take: longer than a busy machine needs, shorter than any supervisor waits.
const PATIENCE: Duration = Duration::from_secs(4);

/// What to ask, and whom.
#[derive(Debug, Args)]
pub struct HealthArgs {
    /// Where the service is; where the configuration says that it listens unless told
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// Ask only whether the process lives, as for restarting it; whether it is ready unless told
    #[arg(long)]
    alive: bool,
    /// The service's answer as one JSON object on the last line of stdout
    #[arg(long)]
    json: bool,
}

/// Asks `/readyz` or `/healthz` and fails where the answer is no.
pub async fn run(config: Config, args: HealthArgs) -> Result<()> {
    let url = match &args.url {
        Some(url) => Url::parse(url).map_err(|e| ConfigError(format!("--url {url:?} is no address: {e}")))?,
        None => own_address(&config.server.listen).await?,
    };
    let url = url.join(if args.alive { "/healthz" } else { "/readyz" }).context("the address takes no path")?;
    // The process has one provider of cryptography; whoever comes first sets it, and everyone sets the same.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || Client::builder().timeout(PATIENCE).no_proxy();
    let client = builder().build();
    // A container may hold no certificates, and loopback needs none.
    let client = if client.is_err() && url.scheme() == "http" { builder().tls_certs_only([]).build() } else { client }?;
    // Reasons are told to who may read. Another address than our own is not to learn our token.
    let token = config.server.token.as_ref().filter(|_| args.url.is_none());
    let request = token.into_iter().fold(client.get(url.clone()), |request, token| request.bearer_auth(token));
    let response = request.send().await.with_context(|| format!("no answer from {url}"))?;
    let status = response.status();
    let answer: Value = response.json().await.with_context(|| format!("{url} answers {status} with something else than JSON"))?;
    if args.json {
        say!("{answer}");
    }
    if !status.is_success() {
        bail!("{url} answers {status}: {}", problems(&answer));
    }
    if !args.json {
        say!("{}", answer["status"].as_str().unwrap_or("ok"));
    }
    Ok(())
}

/// Where a service that listens at `listen` can be reached from the same machine.
async fn own_address(listen: &str) -> Result<Url> {
    let unusable =
        |why: String| ConfigError(format!("`server.listen` is {listen:?}, which is no address: {why}; write host:port"));
    let address = tokio::net::lookup_host(listen).await.map_err(|e| unusable(e.to_string()))?.next();
    let mut address: SocketAddr = address.ok_or_else(|| unusable("it has no meaning".into()))?;
    if address.ip().is_unspecified() {
        address.set_ip(if address.is_ipv4() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { IpAddr::V6(Ipv6Addr::LOCALHOST) });
    }
    Ok(Url::parse(&format!("http://{address}"))?)
}

/// What is out of order, as `broker: connection refused; …`.
fn problems(answer: &Value) -> String {
    let problems = answer["problems"].as_object().into_iter().flatten();
    let told: Vec<String> = problems.map(|(name, why)| format!("{name}: {}", why.as_str().unwrap_or("unknown"))).collect();
    if told.is_empty() { answer.to_string() } else { told.join("; ") }
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
