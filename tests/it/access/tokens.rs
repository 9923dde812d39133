//! API tokens: how they are made, used, listed and revoked.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tidemill::access::{NewSecret, Scope};
use tokio::process::Command;

use super::test_service::TestService;
use crate::harness::{eventually, open_folder};

pub async fn a_token_opens_what_its_scopes_say_until_it_ends() {
    let service = TestService::new().await;
    assert_eq!(service.ask(None, "/v1/jobs", None).await.0, 200, "on loopback without any token every caller is accepted");
    let read = service.token(None, &[Scope::Read]).await;
    eventually("callers must carry a token", Duration::from_secs(8), || async {
        service.ask(None, "/v1/jobs", None).await.0 == 401
    })
    .await;

    let submit = service.token(None, &[Scope::Submit]).await;
    let review = service.token(None, &[Scope::Review]).await;
    let admin = service.token(None, &[Scope::Admin]).await;
    let both = service.token(None, &[Scope::Read, Scope::Submit]).await;
    let search = json!({ "query": "plan", "pipeline": "acme-notes" });
    let routes: [(&str, Option<&Value>, [u16; 5]); 5] = [
        ("/v1/search", Some(&search), [200, 403, 403, 200, 200]),
        ("/v1/jobs", None, [200, 403, 403, 200, 200]),
        ("/v1/jobs/none", None, [404, 403, 403, 404, 404]),
        ("/v1/jobs/none/cancel", Some(&search), [403, 404, 403, 404, 404]),
        ("/metrics", None, [200, 403, 403, 200, 200]),
    ];
    for (path, body, expected) in routes {
        for (token, expected) in [&read, &submit, &review, &admin, &both].into_iter().zip(expected) {
            let (status, answer) = service.ask(Some(token), path, body).await;
            assert_eq!(status, expected, "{path}: {answer}");
        }
    }
    for open in ["/healthz", "/openapi.json"] {
        assert_eq!(service.ask(None, open, None).await.0, 200, "{open} is open to all");
    }

    let (id, secret) = read.strip_prefix("tm_").and_then(|token| token.split_once('_')).unwrap();
    let other = NewSecret::draw().unwrap().token;
    let changed = format!("tm_{id}_{}{}", &secret[..63], if secret.ends_with('0') { '1' } else { '0' });
    for wrong in ["", "s3cret", &other, &changed, secret, &format!("{read} "), &read.to_uppercase(), "tm_' OR true --_x"] {
        let (status, refused) = service.ask(Some(wrong), "/v1/jobs", None).await;
        let expected = if wrong.trim() == read { 200 } else { 401 };
        assert_eq!(status, expected, "{wrong:?}: {refused}");
    }
    let kept = format!("SELECT count(*) FROM tokens t WHERE t::text LIKE '%{secret}%'");
    assert_eq!(service.count(&kept).await, 0, "the ledger knows the secret");
    eventually("the use is recorded", Duration::from_secs(5), || async {
        service.count(&format!("SELECT count(*) FROM tokens WHERE id = '{id}' AND last_used_at IS NOT NULL")).await == 1
    })
    .await;

    let soon = Timestamp::now().as_millisecond() + 1_500;
    let ending = service.token_until(None, &[Scope::Read], Some(soon)).await;
    assert_eq!(service.ask(Some(&ending), "/v1/jobs", None).await.0, 200);
    eventually("it ends by itself", Duration::from_secs(4), || async {
        service.ask(Some(&ending), "/v1/jobs", None).await.0 == 401
    })
    .await;
    assert!(service.store.revoke_token(id).await.unwrap() && !service.store.revoke_token(id).await.unwrap());
    eventually("it is refused once it is revoked", Duration::from_secs(7), || async {
        service.ask(Some(&read), "/v1/jobs", None).await.0 == 401
    })
    .await;
    assert_eq!(service.ask(Some(&admin), "/v1/jobs", None).await.0, 200, "and no other");
}

pub async fn revoking_the_last_token_lets_nobody_in() {
    let service = TestService::new().await;
    let only = service.token(None, &[Scope::Read]).await;
    assert_eq!(service.ask(Some(&only), "/v1/jobs", None).await.0, 200);
    let id = only.split('_').nth(1).unwrap();
    assert!(service.store.revoke_token(id).await.unwrap());
    eventually("it is refused once it is revoked", Duration::from_secs(7), || async {
        service.ask(Some(&only), "/v1/jobs", None).await.0 == 401
    })
    .await;
    let job = json!({ "version": 1, "id": "anybody", "kind": "delete", "pipeline": "acme-notes", "documents": ["acme-1"] });
    for _ in 0..7 {
        for (path, body) in [("/v1/jobs", None), ("/metrics", None), ("/v1/jobs", Some(&job))] {
            let (status, answer) = service.ask(None, path, body).await;
            assert_eq!(status, 401, "{path}: {answer}");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert!(
        service.store.has_tokens().await.unwrap(),
        "an address that others reach may be served where every call needs a token"
    );
}

pub async fn a_token_is_made_listed_and_revoked_on_the_command_line() {
    let service = TestService::with(|config| config.token = Some("of-the-operator".into())).await;
    let folder = open_folder();
    let run = async |arguments: &[&str]| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_tidemill"));
        program.args(arguments).current_dir(folder.path()).env("TIDEMILL_DATABASE__URL", &service.database_url);
        let output = program.output().await.unwrap();
        let texts = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).trim().to_owned());
        (output.status.code().unwrap(), texts)
    };
    let (code, [token, told]) =
        run(&["tokens", "create", "the shop", "--scope", "read", "--tenant", "acme", "--expires", "24h"]).await;
    assert_eq!(code, 0, "{told}");
    assert!(told.contains("cannot be shown again"), "{told}");
    let (status, list) = service.ask(Some(&token), "/v1/jobs", None).await;
    assert_eq!((status.as_u16(), list["jobs"].as_array().map(Vec::len)), (200, Some(1)), "{list}");
    assert_eq!(service.ask(Some("of-the-operator"), "/metrics", None).await.0, 200, "the configured token does everything");

    let (_, [listed, _]) = run(&["tokens", "list", "--json"]).await;
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let entry = &listed["tokens"][0];
    assert_eq!(
        (&entry["name"], &entry["scopes"], &entry["tenant"], &entry["state"]),
        (&json!("the shop"), &json!(["read"]), &json!("acme"), &json!("valid")),
        "{listed}"
    );
    assert!(!listed.to_string().contains(&token), "a token is shown once");
    let id = entry["id"].as_str().unwrap();
    let (code, [said, _]) = run(&["tokens", "revoke", id]).await;
    assert_eq!((code, said.contains("is revoked")), (0, true), "{said}");
    eventually("it is refused", Duration::from_secs(7), || async { service.ask(Some(&token), "/v1/jobs", None).await.0 == 401 })
        .await;
    assert!(run(&["tokens", "list"]).await.1[0].contains("revoked"));
    for (arguments, expected, words) in [
        (&["tokens", "revoke", "none"][..], 1, "there is no token none"),
        (&["tokens", "create", "x"][..], 2, "--scope"),
        (&["tokens", "create", "x", "--scope", "root"][..], 2, "root"),
        (&["tokens", "create", "x", "--scope", "read", "--tenant", "a'; DROP TABLE tokens; --"][..], 2, "is not a tenant name"),
        (&["tokens", "create", " ", "--scope", "read"][..], 2, "is not a name for a token"),
        (&["tokens", "create", "x", "--scope", "read", "--expires", "yesterday"][..], 2, "is not a time"),
    ] {
        let (code, [_, told]) = run(arguments).await;
        assert_eq!(code, expected, "{arguments:?}: {told}");
        assert!(told.contains(words), "{arguments:?}: {told}");
    }
    assert_eq!(service.count("SELECT count(*) FROM tokens").await, 1);

    let (code, [said, told]) = run(&["pipelines", "assign", "acme-notes", "--tenant", "globex"]).await;
    assert_eq!((code, said.contains("instead of acme")), (0, true), "{said} {told}");
    assert_eq!(service.as_reader(Some("globex"), "SELECT count(*) FROM documents").await, Ok(2));
    let (_, [described, _]) = run(&["openapi"]).await;
    assert_eq!(serde_json::from_str::<Value>(&described).unwrap(), service.ask(None, "/openapi.json", None).await.1);
}

/// Each route of the API's description, called with every kind of token.
pub async fn every_route_asks_for_the_scope_that_is_described() {
    let scraper = "of-the-scraper!!";
    let service = TestService::with(|config| config.metrics_token = Some(scraper.into())).await;
    let expired = service.token_until(None, &[Scope::Admin], Some(1)).await;
    let revoked = service.token(None, &[Scope::Admin]).await;
    let (id, _) = revoked.strip_prefix("tm_").and_then(|token| token.split_once('_')).unwrap();
    assert!(service.store.revoke_token(id).await.unwrap());
    let scopes = [Scope::Read, Scope::Submit, Scope::Review, Scope::Admin];
    let mut tokens = Vec::new();
    for (scope, tenant) in scopes.into_iter().flat_map(|scope| [(scope, None), (scope, Some("acme"))]) {
        tokens.push((scope, tenant.is_some(), service.token(tenant, &[scope]).await));
    }
    let (_, description) = service.ask(None, "/openapi.json", None).await;
    let mut asked = 0;
    for (template, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let path =
                template.split('/').map(|part| if part.starts_with('{') { "none" } else { part }).collect::<Vec<_>>().join("/");
            let body = (method == "post").then(|| json!({}));
            let status = async |token: Option<&str>| service.ask(token, &path, body.as_ref()).await.0.as_u16();
            let Some(wanted) = operation["security"][0]["token"][0].as_str() else {
                assert_eq!(status(None).await, 200, "{path} is open to all");
                continue;
            };
            for stranger in [None, Some(expired.as_str()), Some(revoked.as_str()), Some("tm_00_00"), Some("")] {
                assert_eq!(status(stranger).await, 401, "{method} {path} by {stranger:?}");
            }
            let is_metrics = path == "/metrics";
            assert_eq!(status(Some(scraper)).await, if is_metrics { 200 } else { 403 }, "{method} {path} by the scraper");
            for (scope, of_a_tenant, token) in &tokens {
                let may = (scope.as_str() == wanted || *scope == Scope::Admin) && !(is_metrics && *of_a_tenant);
                let found = status(Some(token)).await;
                let is_right = if may { ![401, 403].contains(&found) && found < 500 } else { found == 403 };
                assert!(is_right, "{method} {path} with {scope}, of a tenant: {of_a_tenant}: {found}");
                asked += 1;
            }
        }
    }
    assert!(asked > 150, "only {asked} requests were sent");
}
