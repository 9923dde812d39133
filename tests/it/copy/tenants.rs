//! Two tenants with copy of their own, of which one requests the other's.

use std::path::Path;

use futures::TryStreamExt;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tidemill::copy::{CopyError, CopyService, DecisionRequest, ExportFormat};
use tidemill::pipeline::definition::Definition;
use tidemill::store::{CopyFilter, CopyState, CopyVersionKey};

use crate::harness::postgres;

const TENANTS: [&str; 2] = ["acme", "globex"];

fn definition(tenant: &str) -> Definition {
    let text = format!(
        "version: 1\nname: {tenant}-shop\ntenant: {tenant}\nsource: {{ topic: {tenant} }}\ntasks:\n  page:\n    compose:\n      \
         schema: {{ type: object, properties: {{ title: {{ type: string }} }} }}\n      \
         object: '{{\"title\": {{{{ document.text | tojson }}}}}}'\n\
         copy: {{ task: page, url: 'https://{tenant}.example/{{{{ document.id }}}}', unique: [title] }}\n"
    );
    Definition::parse(Path::new("shop.yaml"), &text).unwrap()
}

/// Inserts a document with one version that waits and one that is published.
async fn write(url: &str, tenant: &str) {
    let statement = format!(
        "WITH batch AS (
             INSERT INTO batches (id, pipeline, topic, partition, from_offset, to_offset, epoch, records,
                                  units_in, units_ok, units_reused, units_skipped, units_dead, parquet_rows)
             VALUES (gen_random_uuid(), '{tenant}-shop', 't', 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0) RETURNING id),
         document AS (
             INSERT INTO documents (pipeline, id, version, deleted, text, metadata, source, batch_id)
             SELECT '{tenant}-shop', '{tenant}-1', 1, false, 'A secret plan', '{{}}', '{{\"id\": 1}}', id FROM batch),
         version AS (
             INSERT INTO copy_versions (pipeline, document_id, version, task, origin, state, content, url, reasons, traces,
                                        document_version, fingerprint, decided_at)
             SELECT '{tenant}-shop', '{tenant}-1', n, 'page', 'generated', state, '{{\"title\":\"Plan ' || n || ' of {tenant}\"}}',
                    'https://{tenant}.example/{tenant}-1', '[]'::jsonb, '[]'::jsonb, 1, decode(repeat('00', 32), 'hex'), now()
             FROM (VALUES (1, 'approved'), (2, 'review')) AS v (n, state) RETURNING pipeline, document_id, version)
         INSERT INTO copy_keys (pipeline, document_id, version, field, value, arrival)
         SELECT pipeline, document_id, version, 'title', decode('0' || version, 'hex'), nextval('copy_arrivals') FROM version"
    );
    postgres::execute(url, &statement).await;
}

pub async fn a_tenant_neither_sees_nor_touches_anothers() {
    let database = postgres::database().await;
    let definitions = TENANTS.map(definition);
    for tenant in TENANTS {
        database.store.enroll_pipeline(&format!("{tenant}-shop"), tenant).await.unwrap();
        write(&database.url, tenant).await;
    }
    let all = CopyService::new(database.store.clone(), &definitions);
    let acme = all.visible_to(Some(&"acme".into()));
    assert_eq!(all.list(None, CopyState::Review, 10, None).await.unwrap().in_review, 2, "a token without a tenant sees all");
    let queue = acme.list(None, CopyState::Review, 10, None).await.unwrap();
    assert_eq!((queue.copies.len(), queue.in_review, queue.copies[0].document_id.as_str()), (1, 1, "acme-1"));
    assert_eq!(acme.show(None, "acme-1").await.unwrap().published.unwrap().version, 1);

    let verdict = |pipeline: Option<&str>| DecisionRequest {
        pipeline: pipeline.map(str::to_owned),
        document_id: "globex-1".into(),
        version: 2,
        by: "acme".into(),
        note: None,
    };
    let edit = || serde_json::json!({"title": "Ours"}).as_object().unwrap().clone();
    // The other's pipeline and document are unknown, however the request names them.
    let refusals = [
        acme.list(Some("globex-shop"), CopyState::Review, 10, None).await.unwrap_err(),
        acme.show(Some("globex-shop"), "globex-1").await.unwrap_err(),
        acme.show(None, "globex-1").await.unwrap_err(),
        acme.approve(verdict(Some("globex-shop")), &[]).await.unwrap_err(),
        acme.approve(verdict(None), &[]).await.unwrap_err(),
        acme.reject(verdict(None)).await.unwrap_err(),
        acme.edit(verdict(None), edit()).await.unwrap_err(),
        acme.sitemap(Some("globex-shop"), None).await.unwrap_err(),
        acme.export(Some("globex-shop"), ExportFormat::Csv).err().unwrap(),
    ];
    for refused in refusals {
        assert!(matches!(refused, CopyError::Invalid(_) | CopyError::Unknown { .. }), "{refused:?}");
        let said = refused.to_string().replace("there is no pipeline `globex-shop`", "").replace("document `globex-1`", "");
        assert!(!said.contains("globex"), "{said}");
    }
    let count = "SELECT count(*) FROM copy_versions WHERE pipeline = 'globex-shop' AND (state, version) IN (('approved', 1), ('review', 2))";
    assert_eq!(postgres::count(&database.url, count).await, 2, "nothing was decided");
    let exported: Vec<bytes::Bytes> = acme.export(None, ExportFormat::Csv).unwrap().try_collect().await.unwrap();
    let exported = String::from_utf8(exported.concat()).unwrap();
    assert!(exported.contains("acme-1") && !exported.contains("globex"), "{exported}");

    // Without the service's own filter: the queries name the other tenant's rows.
    let reader = database.store.reader(Some("acme".into()));
    let filter = CopyFilter { pipeline: "globex-shop".into(), state: CopyState::Review, after: None, limit: 10 };
    assert_eq!(reader.copy_versions(&filter).await.unwrap(), []);
    assert_eq!(reader.copy_history("globex-shop", "globex-1").await.unwrap(), []);
    assert_eq!(reader.published_copy("globex-shop", "", 10).await.unwrap(), []);
    assert_eq!(reader.current_document("globex-shop", "globex-1").await.unwrap(), None);
    let place = CopyVersionKey { pipeline: "globex-shop".into(), document_id: "globex-1".into(), version: 2 };
    assert_eq!(reader.copy_duplicates(&[place]).await.unwrap(), []);
    assert_eq!(database.store.reader(None).copy_versions(&filter).await.unwrap().len(), 1, "the service itself sees it");
    let mut connection = PgConnection::connect(&database.url).await.unwrap();
    let role = "SELECT set_config('tidemill.tenant', 'acme', false), set_config('role', 'tidemill_reader', false)";
    sqlx::query(role).execute(&mut connection).await.unwrap();
    for table in ["copy_versions", "copy_keys"] {
        let seen: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM {table}"))).fetch_one(&mut connection).await.unwrap();
        assert_eq!(seen, 2, "{table} shows a tenant its own rows alone");
        let refused = sqlx::query(AssertSqlSafe(format!("DELETE FROM {table}"))).execute(&mut connection).await.unwrap_err();
        assert!(refused.to_string().contains("permission denied"), "{refused}");
    }
}
