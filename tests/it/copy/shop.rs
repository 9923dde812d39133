//! A shop with pages that are made without a model: a topic of products, and workers that serve HTTP.

use std::time::Duration;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::harness::free_port;
use crate::harness::kafka::NewRecord;
use crate::harness::worker::Worker;
use crate::harness::{eventually, kafka, postgres};
use crate::test_stream::TestStream;

/// The shop's stream and a client of its workers.
pub struct Shop {
    pub stream: TestStream,
    client: Client,
}

/// A product. Its page says 9 where its source says SOME, so that a check finds a number without a source.
pub struct Product {
    id: String,
    title: String,
    body: String,
}

impl Product {
    pub fn new(id: &str, title: &str, body: &str) -> Self {
        Self { id: id.into(), title: title.into(), body: body.into() }
    }

    fn sent(&self, partition: Option<i32>) -> NewRecord {
        let Self { id, title, body } = self;
        let payload = json!({"id": id, "title": title, "description": body, "copy": body});
        NewRecord { partition, key: id.clone().into_bytes(), payload: Some(payload.to_string().into_bytes()) }
    }
}

impl Shop {
    /// A shop with this `publish` setting and a topic of so many partitions.
    pub async fn open(publish: &str, partitions: i32) -> Self {
        let stream = TestStream::new(kafka::shared().await, partitions).await;
        let text = format!(
            r#"version: 1
name: echo
source: {{ topic: {}, id: id, text: "{{{{ title }}}}\n\n{{{{ description }}}}" }}
tasks:
  page:
    compose:
      schema:
        type: object
        properties:
          title: {{ type: string, minLength: 1, maxLength: 40 }}
          body: {{ type: string }}
          slug: {{ type: string }}
        required: [title, body, slug]
      object: >-
        {{"title": {{{{ document.fields.title | tojson }}}}, "body": {{{{ document.fields.copy | replace('SOME', '9') | tojson }}}}, "slug": {{{{ document.id | slug | tojson }}}}}}
      checks: {{ banned: [best], grounded: [body] }}
copy:
  task: page
  url: "https://shop.example/p/{{{{ copy.slug }}}}"
  unique: [title]
  publish: {publish}
  sitemap: "https://shop.example/map-{{{{ page }}}}.xml"
sinks: {{ postgres: {{}}, parquet: {{ dataset: results }} }}
budget: {{ max_wait: 20ms, max_records: 5 }}
"#,
            stream.topic
        );
        stream.write_pipeline(&text);
        Self { stream, client: Client::new() }
    }

    /// Starts a worker and returns its address.
    pub async fn serve(&self) -> (Worker, String) {
        let address = format!("127.0.0.1:{}", free_port());
        let worker = self.stream.worker_at(&address, "");
        eventually("the worker serves", Duration::from_secs(60), || async {
            let ready = self.client.get(format!("http://{address}/v1/copy")).send().await;
            ready.is_ok_and(|response| response.status() == StatusCode::OK)
        })
        .await;
        (worker, address)
    }

    pub async fn send(&self, products: &[Product]) {
        let records = products.iter().map(|product| product.sent(Some(0))).collect();
        self.stream.client.send(&self.stream.topic, records).await;
    }

    /// Sends products whose id begins with `a` to the first partition, and all others to the second.
    pub async fn send_by_side(&self, products: &[Product]) {
        let side = |product: &Product| Some(i32::from(!product.id.starts_with('a')));
        let records = products.iter().map(|product| product.sent(side(product))).collect();
        self.stream.client.send(&self.stream.topic, records).await;
    }

    /// Deletes a product.
    pub async fn delete(&self, id: &str) {
        let partition = Some(i32::from(id.starts_with('b')));
        let partitions = postgres::count(&self.stream.database_url, "SELECT count(*) FROM positions").await;
        let partition = if partitions > 1 { partition } else { Some(0) };
        let record = NewRecord { partition, key: id.as_bytes().to_vec(), payload: None };
        self.stream.client.send(&self.stream.topic, vec![record]).await;
    }

    /// Waits until so many records are committed.
    pub async fn committed(&self, records: i64) {
        eventually(&format!("{records} records are committed"), Duration::from_secs(60), || async {
            self.stream.committed().await == records
        })
        .await;
    }

    /// How many workers own a partition.
    pub async fn owners(&self) -> i64 {
        postgres::count(&self.stream.database_url, "SELECT count(DISTINCT owner) FROM positions").await
    }

    pub async fn get(&self, address: &str, path: &str) -> (StatusCode, Value) {
        let response = self.client.get(format!("http://{address}{path}")).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    pub async fn post(&self, address: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let response = self.client.post(format!("http://{address}{path}")).json(&body).send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// The addresses in the sitemap.
    pub async fn urls(&self, address: &str) -> Vec<String> {
        let response = self.client.get(format!("http://{address}/v1/sitemap.xml")).send().await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/xml");
        let xml = response.text().await.unwrap();
        xml.split("<loc>").skip(1).map(|rest| rest.split("</loc>").next().unwrap().to_owned()).collect()
    }

    /// Checks that both exports hold exactly these documents, and that no cell is a formula.
    pub async fn exports_hold(&self, address: &str, ids: &[&str]) {
        let export = async |format: &str| {
            let response = self.client.get(format!("http://{address}/v1/exports/copy?format={format}")).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::OK);
            response.bytes().await.unwrap()
        };
        let csv = String::from_utf8(export("csv").await.to_vec()).unwrap();
        let lines: Vec<&str> = csv.split("\r\n").filter(|line| !line.is_empty()).collect();
        assert!(lines[0].ends_with("\"title\",\"body\",\"slug\""), "{csv}");
        let exported: Vec<&str> = lines[1..].iter().map(|line| line[1..].split('"').next().unwrap()).collect();
        assert_eq!(exported, ids, "{csv}");
        assert!(!csv.contains("\"=") && csv.contains("\"'=SUM(A1) board\"") == ids.contains(&"d5"), "{csv}");
        assert_eq!(parquet_ids(&export("parquet").await), ids);
    }

    /// Inserts so many approved pages into the ledger.
    pub async fn publish_many(&self, pages: i64) {
        self.stream.store.migrate().await.unwrap();
        let statement = format!(
            "INSERT INTO copy_versions (pipeline, document_id, version, task, origin, state, content, url, reasons, traces,
                                        document_version, fingerprint, decided_at)
             SELECT 'echo', 'd' || n, 1, 'page', 'generated', 'approved', '{{\"title\":\"t\"}}', 'https://shop.example/p/' || n,
                    '[]'::jsonb, '[]'::jsonb, 1, decode(repeat('00', 32), 'hex'), now()
             FROM generate_series(1, {pages}) AS n"
        );
        postgres::execute(&self.stream.database_url, &statement).await;
    }
}

/// The ids of the documents in a Parquet export.
pub fn parquet_ids(bytes: &[u8]) -> Vec<String> {
    let reader = SerializedFileReader::new(bytes::Bytes::copy_from_slice(bytes)).unwrap();
    let rows = reader.get_row_iter(None).unwrap();
    rows.map(|row| row.unwrap().get_string(0).unwrap().clone()).collect()
}
