//! Protection against pages of other sites. Without a token, every program on this machine is accepted, and a browser on this
//! machine runs pages of other sites.
//!
//! | header | accepted without a token |
//! |---|---|
//! | `Host` | `localhost`, a loopback address, or the host of `server.listen`; another name comes from DNS rebinding |
//! | `Origin` | absent, or the same host and port; a page of another site sends its own |
//! | `Sec-Fetch-Site` | absent, `none` or `same-origin` |
//!
//! A request with a token is not checked: a page of another site cannot know the token.

use std::net::IpAddr;

use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};

use super::error::{ApiError, ProblemCode};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Refuses a request that a page of another site may have sent. `listen` is `server.listen`.
///
/// # Errors
/// The message names the header and what to do.
pub fn check(uri: &Uri, headers: &HeaderMap, listen: &str) -> Result<(), ApiError> {
    let texts = |name: &HeaderName| headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or("not text"));
    let host = texts(&header::HOST).next().unwrap_or_default();
    let own = Authority::try_from(listen).ok();
    let is_own = |text: &str| {
        let Ok(authority) = Authority::try_from(text) else { return false };
        let name = authority.host();
        is_plain(text, name) && (is_loopback(name) || own.as_ref().is_some_and(|own| own.host().eq_ignore_ascii_case(name)))
    };
    if !is_own(host) {
        return Err(refused(format!("the host {host:?} is not this machine")));
    }
    if let Some(target) = uri.authority().map(Authority::as_str).filter(|target| !is_own(target)) {
        return Err(refused(format!("the host {target:?} in the request's target is not this machine")));
    }
    if let Some(origin) = texts(&header::ORIGIN).find(|origin| *origin != format!("http://{host}")) {
        return Err(refused(format!("the origin {origin:?} is not `http://{host}`")));
    }
    match texts(&SEC_FETCH_SITE).find(|site| !["none", "same-origin"].contains(site)) {
        None => Ok(()),
        Some(site) => Err(refused(format!("the request comes from a page of another site ({site})"))),
    }
}

/// Whether the text is only the name, or the name and a port: some programs read another name in `[::1].evil.example` or
/// `evil@localhost`.
fn is_plain(text: &str, name: &str) -> bool {
    match text.strip_prefix(name) {
        Some("") => true,
        Some(port) => port.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok()),
        None => false,
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

fn refused(reason: String) -> ApiError {
    let fix = "use http://localhost, or send the header `Authorization: Bearer` with a token from `tidemill tokens create`";
    ApiError::new(
        ProblemCode::Forbidden,
        format!("{reason}: without a token, only pages and programs of this machine are accepted; {fix}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(headers: &[(&str, &str)]) -> Result<(), String> {
        let mut sent = HeaderMap::new();
        for (name, value) in headers {
            sent.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        check(&"/v1/search".parse().unwrap(), &sent, "tidemill.local:8080").map_err(|error| error.message)
    }

    #[test]
    fn programs_and_own_pages_pass() {
        for host in [
            "localhost:8080",
            "LOCALHOST",
            "127.0.0.1:8080",
            "127.8.8.8",
            "[::1]:8080",
            "[::ffff:127.0.0.1]:1",
            "tidemill.local:8080",
        ] {
            assert_eq!(says(&[("host", host)]), Ok(()), "{host}");
            let origin = format!("http://{host}");
            assert_eq!(says(&[("host", host), ("origin", &origin), ("sec-fetch-site", "same-origin")]), Ok(()), "{host}");
        }
        assert_eq!(says(&[("host", "localhost:8080"), ("sec-fetch-site", "none")]), Ok(()), "an address typed by hand");
    }

    #[test]
    fn pages_of_other_sites_do_not_whatever_they_can_send() {
        for (headers, names) in [
            (&[("host", "evil.example:8080")][..], "the host"),
            (&[("host", "localhost.evil.example")], "the host"),
            (&[("host", "10.0.0.1:8080")], "the host"),
            (&[("host", "")], "the host"),
            (&[("host", "[::1].evil.example")], "the host"),
            (&[("host", "[::1]evil")], "the host"),
            (&[("host", "localhost:evil")], "the host"),
            (&[("host", "localhost:99999")], "the host"),
            (&[("host", "evil.example@localhost")], "the host"),
            (&[], "the host"),
            (&[("host", "localhost:8080"), ("origin", "https://evil.example")], "the origin"),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], "the origin"),
            (&[("host", "localhost:8080"), ("origin", "null")], "the origin"),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "cross-site")], "another site"),
            (&[("host", "localhost:8080"), ("sec-fetch-site", "same-site")], "another site"),
            (&[("host", "localhost:1"), ("origin", "http://localhost:1"), ("origin", "https://evil.example")], "the origin"),
            (&[("host", "localhost:1"), ("sec-fetch-site", "none"), ("sec-fetch-site", "cross-site")], "another site"),
        ] {
            let refusal = says(headers).unwrap_err();
            assert!(refusal.contains(names) && refusal.contains("tokens create"), "{headers:?}: {refusal}");
        }
        let (target, host) = ("http://evil.example/v1/search".parse().unwrap(), [(header::HOST, "localhost".parse().unwrap())]);
        assert!(check(&target, &host.into_iter().collect(), "localhost:8080").is_err(), "the target's own host counts, too");
    }
}
