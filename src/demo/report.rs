//! What a demo run came to, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use serde_json::Value;

use crate::cli::terminal::name;
use crate::search::SearchResult;
use crate::store::{PipelineStatistics, SampleDocument};

/// The report; serialized, it is the object that `--json` prints.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    /// Records sent and committed.
    pub records: i64,
    /// Documents whose latest version came from this run.
    pub documents: i64,
    /// Results by task, computed or reused.
    pub results: BTreeMap<String, i64>,
    /// Of those, reused from an earlier run or another document.
    pub reused: i64,
    /// Dead letters.
    pub dead_letters: i64,
    /// Rows of the pipeline's Parquet files, of all runs.
    pub parquet_rows: i64,
    /// Where those are.
    pub parquet_dir: Option<PathBuf>,
    /// The database without its password, for those who want to look.
    pub database_url: String,
    /// The file that holds the password.
    pub database_password_file: PathBuf,
    /// From the first record sent to the last one committed.
    pub elapsed_seconds: f64,
    /// Documents in that time.
    pub documents_per_second: f64,
    /// Tokens run through models in that time.
    pub tokens: i64,
    /// Where the HTTP API is, as long as it is up.
    pub http: String,
    #[serde(skip)]
    glances: Vec<SampleDocument>,
    #[serde(skip)]
    searches: Vec<ExampleSearch>,
}

/// A search with what it found.
#[derive(Debug)]
pub struct ExampleSearch {
    /// What was looked for.
    pub query: String,
    /// The hits.
    pub hits: Vec<SearchResult>,
}

/// Columns of the table.
const WIDTH: u16 = 140;
/// Characters of a text that a table cell shows.
const CELL: usize = 120;

impl DemoReport {
    /// Puts the numbers together.
    pub fn new(
        sent: u64,
        elapsed: Duration,
        statistics: PipelineStatistics,
        (glances, searches): (Vec<SampleDocument>, Vec<ExampleSearch>),
        (parquet_dir, database, http): (Option<PathBuf>, (String, PathBuf), String),
    ) -> Self {
        debug_assert_eq!(sent as i64, statistics.records, "the feeder returns only once everything is committed");
        Self {
            records: statistics.records,
            documents: statistics.documents,
            results: statistics.results,
            reused: statistics.reused,
            dead_letters: statistics.dead_letters,
            parquet_rows: statistics.parquet_rows,
            parquet_dir,
            database_url: database.0,
            database_password_file: database.1,
            elapsed_seconds: elapsed.as_secs_f64(),
            documents_per_second: statistics.documents as f64 / elapsed.as_secs_f64(),
            tokens: statistics.tokens,
            http,
            glances,
            searches,
        }
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_width(WIDTH).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["document", "text", "label", "confidence", "summary"]);
        for glance in &self.glances {
            table.add_row([
                shortened(&name(&glance.id)),
                shortened(&glance.beginning),
                glance.label.clone().unwrap_or_default(),
                glance.confidence.map(|c| format!("{c:.2}")).unwrap_or_default(),
                glance.text.as_deref().map(shortened).unwrap_or_default(),
            ]);
        }
        writeln!(f, "\n{table}\n")?;
        for glance in &self.glances {
            if let Some(facts) = glance.facts.as_ref().map(facts).filter(|facts| !facts.is_empty()) {
                writeln!(f, "{}  facts: {facts}", name(&glance.id))?;
            }
            if let Some(copy) = &glance.copy {
                writeln!(f, "{}  copy:  {}", name(&glance.id), shortened(copy))?;
            }
        }
        writeln!(f)?;
        for ExampleSearch { query, hits } in &self.searches {
            writeln!(f, "search: {query}")?;
            for (number, hit) in hits.iter().enumerate() {
                let label = hit.label.as_deref().unwrap_or("-");
                writeln!(
                    f,
                    "  {}. {:.4}  {}  [{label}]  {}",
                    number + 1,
                    hit.score,
                    name(&hit.document_id),
                    shortened(&hit.chunk.text)
                )?;
            }
        }
        writeln!(f)?;
        let results: Vec<String> = self.results.iter().map(|(task, count)| format!("{task} {count}")).collect();
        writeln!(f, "records        {}, {} documents, {} dead letters", self.records, self.documents, self.dead_letters)?;
        writeln!(f, "results        {} ({} reused)", results.join(", "), self.reused)?;
        if self.tokens == 0 && self.reused > 0 {
            writeln!(f, "               every result was computed before and is reused: no model was run")?;
        }
        let rate = self.documents_per_second;
        writeln!(f, "rate           {rate:.1} documents/s, {} tokens in {:.1} s", self.tokens, self.elapsed_seconds)?;
        if let Some(folder) = &self.parquet_dir {
            writeln!(f, "Parquet        {} rows in {}", self.parquet_rows, folder.display())?;
        }
        writeln!(f, "database       {}, password in {}", self.database_url, self.database_password_file.display())
    }
}

/// The values of an extraction in the order of the answer; `?` marks those that the document does not say.
fn facts(stored: &Value) -> String {
    let shown = stored["leaves"].as_array().into_iter().flatten().filter_map(|leaf| {
        let path = leaf["path"].as_str()?;
        let value = stored["fields"].pointer(path).filter(|value| !value.is_null())?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let doubt = if leaf["grounded"] == false { " (?)" } else { "" };
        Some(format!("{} {}{doubt}", path.trim_start_matches('/'), shortened(&value)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CELL) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
