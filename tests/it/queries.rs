//! The committed query cache agrees with the migrations. Builds without a database check their SQL by it.

use std::path::Path;

use libtest_mimic::Trial;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Column, Connection, Executor, PgConnection, SqlSafeStr, Statement};

use crate::harness::postgres;
use crate::harness::trial::{Needs, trial};

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![trial!(Needs::NOTHING, the_committed_cache_agrees_with_the_migrations)]
}

async fn the_committed_cache_agrees_with_the_migrations() {
    let database = postgres::database().await;
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(".sqlx");
    let mut checked = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let cached: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let query = cached["query"].as_str().unwrap();
        let statement = connection.prepare(AssertSqlSafe(query.to_owned()).into_sql_str()).await;
        let statement = statement.unwrap_or_else(|error| panic!("{}: {error}: renew the cache\n{query}", path.display()));
        let columns: Vec<&str> = statement.columns().iter().map(|column| column.name()).collect();
        let described = cached["describe"]["columns"].as_array().unwrap();
        let expected: Vec<&str> = described.iter().map(|column| column["name"].as_str().unwrap()).collect();
        assert_eq!(columns, expected, "{}: the columns have changed: renew the cache", path.display());
        checked += 1;
    }
    assert!(checked > 20, "only {checked} queries are in the cache: is it committed?");
}
