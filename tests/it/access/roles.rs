//! The database role in which tenants read, on servers that do not have it yet.

use futures::future::join_all;
use tidemill::config::DatabaseConfig;
use tidemill::store::Store;
use tokio::task::spawn_blocking;

use crate::harness::postgres::{self, Server};

/// The address of a database of the server for an account of its own.
fn address(server: &Server, account: &str, database: &str) -> String {
    let (_, place) = server.url().split_once('@').unwrap();
    let (host, _) = place.rsplit_once('/').unwrap();
    format!("postgres://{account}:secret@{host}/{database}")
}

/// Makes an account and databases that belong to it.
async fn account(server: &Server, name: &str, rights: &str, databases: &[String]) {
    postgres::execute(server.url(), &format!("CREATE ROLE {name} LOGIN PASSWORD 'secret' {rights}")).await;
    for database in databases {
        postgres::execute(server.url(), &format!("CREATE DATABASE {database} OWNER {name}")).await;
        let (place, _) = server.url().rsplit_once('/').unwrap();
        postgres::execute(&format!("{place}/{database}"), "CREATE EXTENSION vector").await;
    }
}

async fn migrate(url: &str) -> anyhow::Result<Store> {
    let store = Store::connect(&DatabaseConfig { url: Some(url.to_owned()), ..DatabaseConfig::default() })?;
    store.migrate().await?;
    Ok(store)
}

pub async fn the_role_is_made_once_however_many_databases_want_it() {
    let server = spawn_blocking(Server::start).await.unwrap();
    let databases: Vec<String> = (0..6).map(|n| format!("house_{n}")).collect();
    account(&server, "service", "CREATEROLE", &databases).await;
    let urls: Vec<String> = databases.iter().map(|database| address(&server, "service", database)).collect();
    let outcomes = join_all(urls.iter().map(|url| migrate(url))).await;
    for (url, outcome) in urls.iter().zip(outcomes) {
        let store = outcome.unwrap_or_else(|error| panic!("{error:#}"));
        postgres::execute(
            url,
            "INSERT INTO pipelines VALUES ('a', 'acme'), ('b', 'globex');
             INSERT INTO documents (pipeline, id, version, deleted, text, metadata, batch_id)
             SELECT name, name, 1, false, 'text', '{}', gen_random_uuid() FROM pipelines",
        )
        .await;
        assert_eq!(postgres::count(url, "SELECT count(*) FROM documents").await, 2, "the service owns the tables and sees all");
        let confined = "SELECT count(*) FROM documents, (SELECT set_config('tidemill.tenant', 'acme', false)) AS tenant";
        let seen = format!("SET ROLE tidemill_reader; {confined}");
        postgres::execute(url, &seen).await;
        let filter = tidemill::store::JobFilter { limit: 1, ..Default::default() };
        assert!(store.reader(Some("acme".into())).jobs(&filter).await.unwrap().is_empty(), "it may read in the role");
        store.close().await;
    }
    assert_eq!(
        postgres::count(server.url(), "SELECT count(*) FROM pg_roles WHERE rolname = 'tidemill_reader' AND NOT rolcanlogin")
            .await,
        1
    );
    spawn_blocking(move || drop(server)).await.unwrap();
}

pub async fn who_may_not_make_the_role_hears_what_to_do() {
    let server = spawn_blocking(Server::start).await.unwrap();
    account(&server, "plain", "", &["plain_house".to_owned()]).await;
    let url = address(&server, "plain", "plain_house");
    let error = format!("{:?}", migrate(&url).await.unwrap_err());
    assert!(error.contains("there is no role tidemill_reader and plain may not make it"), "{error}");
    let mend = "CREATE ROLE tidemill_reader NOLOGIN; GRANT tidemill_reader TO plain;";
    assert!(error.contains(mend), "{error}");
    postgres::execute(server.url(), "CREATE ROLE tidemill_reader NOLOGIN").await;
    let error = format!("{:?}", migrate(&url).await.unwrap_err());
    assert!(error.contains("plain is not in the role tidemill_reader"), "{error}");
    postgres::execute(server.url(), "GRANT tidemill_reader TO plain").await;
    migrate(&url).await.unwrap().close().await;
    spawn_blocking(move || drop(server)).await.unwrap();
}
