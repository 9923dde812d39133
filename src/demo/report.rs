//! The report of a demo run, for people and for programs.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use comfy_table::{ContentArrangement, Table};
use serde::Serialize;
use serde_json::Value;

use crate::search::SearchResult;
use crate::store::{PipelineStatistics, SampleDocument};
use crate::terminal::escaped_line;

/// The report. Serialized, it is the object that `--json` prints.
#[derive(Debug, Serialize)]
pub struct DemoReport {
    /// Records sent and committed.
    pub records: i64,
    /// Documents whose latest version came from this run.
    pub documents: i64,
    /// Results by task, computed or reused.
    pub results: BTreeMap<String, i64>,
    /// How many of them are reused from an earlier run or another document.
    pub reused: i64,
    pub dead_letters: i64,
    /// Rows of the pipeline's Parquet files, of all runs.
    pub parquet_rows: i64,
    pub parquet_dir: Option<PathBuf>,
    pub database_url: String,
    pub database_password_file: PathBuf,
    /// From the first record sent to the last one committed.
    pub elapsed_seconds: f64,
    pub documents_per_second: f64,
    /// Tokens that went through models in that time.
    pub tokens: i64,
    /// The address of the HTTP API, while it is up.
    pub http: String,
    #[serde(skip)]
    examples: ReportExamples,
}

/// The figures of a run.
pub struct RunFigures {
    pub sent: u64,
    /// From the first record sent to the last one committed.
    pub elapsed: Duration,
    pub statistics: PipelineStatistics,
}

/// Documents and searches that show what the pipeline stored.
#[derive(Debug)]
pub struct ReportExamples {
    pub documents: Vec<SampleDocument>,
    pub searches: Vec<ExampleSearch>,
}

/// Where a run's results are.
pub struct ReportLocations {
    pub parquet_dir: Option<PathBuf>,
    pub database_url: String,
    pub database_password_file: PathBuf,
    /// The address of the HTTP API.
    pub http: String,
}

/// A search and its hits.
#[derive(Debug)]
pub struct ExampleSearch {
    pub query: String,
    pub hits: Vec<SearchResult>,
}

/// The width of the table, in characters.
const TABLE_WIDTH: u16 = 140;
/// The most characters of a text in a cell.
const CELL_CHARACTERS: usize = 120;

impl DemoReport {
    pub(super) fn new(run: RunFigures, examples: ReportExamples, locations: ReportLocations) -> Self {
        let RunFigures { sent, elapsed, statistics } = run;
        debug_assert_eq!(sent as i64, statistics.records, "a run ends only once every record is committed");
        let ReportLocations { parquet_dir, database_url, database_password_file, http } = locations;
        Self {
            records: statistics.records,
            documents: statistics.documents,
            results: statistics.results,
            reused: statistics.reused,
            dead_letters: statistics.dead_letters,
            parquet_rows: statistics.parquet_rows,
            parquet_dir,
            database_url,
            database_password_file,
            elapsed_seconds: elapsed.as_secs_f64(),
            documents_per_second: statistics.documents as f64 / elapsed.as_secs_f64(),
            tokens: statistics.tokens,
            http,
            examples,
        }
    }
}

impl fmt::Display for DemoReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.load_style(UTF8_HORIZONTAL_ONLY).set_width(TABLE_WIDTH).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(["document", "text", "label", "confidence", "summary"]);
        for document in &self.examples.documents {
            table.add_row([
                shortened(&escaped_line(&document.id)),
                shortened(&document.beginning),
                document.label.clone().unwrap_or_default(),
                document.confidence.map(|c| format!("{c:.2}")).unwrap_or_default(),
                document.text.as_deref().map(shortened).unwrap_or_default(),
            ]);
        }
        writeln!(f, "\n{table}\n")?;
        for document in &self.examples.documents {
            if let Some(facts) = document.facts.as_ref().map(facts).filter(|facts| !facts.is_empty()) {
                writeln!(f, "{}  facts: {facts}", escaped_line(&document.id))?;
            }
            if let Some(copy) = &document.copy {
                writeln!(f, "{}  copy:  {}", escaped_line(&document.id), shortened(copy))?;
            }
        }
        writeln!(f)?;
        for ExampleSearch { query, hits } in &self.examples.searches {
            writeln!(f, "search: {query}")?;
            for (number, hit) in hits.iter().enumerate() {
                let label = hit.label.as_deref().unwrap_or("-");
                writeln!(
                    f,
                    "  {}. {:.4}  {}  [{label}]  {}",
                    number + 1,
                    hit.score,
                    escaped_line(&hit.document_id),
                    shortened(&hit.chunk.text)
                )?;
            }
        }
        writeln!(f)?;
        let results: Vec<String> = self.results.iter().map(|(task, count)| format!("{task} {count}")).collect();
        writeln!(f, "records        {}, {} documents, {} dead letters", self.records, self.documents, self.dead_letters)?;
        writeln!(f, "results        {} ({} reused)", results.join(", "), self.reused)?;
        if self.tokens == 0 && self.reused > 0 {
            writeln!(f, "               every result was computed before and is reused; no model ran")?;
        }
        let rate = self.documents_per_second;
        writeln!(f, "rate           {rate:.1} documents/s, {} tokens in {:.1} s", self.tokens, self.elapsed_seconds)?;
        if let Some(folder) = &self.parquet_dir {
            writeln!(f, "Parquet        {} rows in {}", self.parquet_rows, folder.display())?;
        }
        writeln!(f, "database       {}, password in {}", self.database_url, self.database_password_file.display())
    }
}

/// The values of an extraction in the order of the answer; `?` marks values that the document does not state.
fn facts(stored: &Value) -> String {
    let shown = stored["leaves"].as_array().into_iter().flatten().filter_map(|leaf| {
        let path = leaf["path"].as_str()?;
        let value = stored["fields"].pointer(path).filter(|value| !value.is_null())?;
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let mark = if leaf["grounded"] == false { " (?)" } else { "" };
        Some(format!("{} {}{mark}", path.trim_start_matches('/'), shortened(&value)))
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn shortened(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(CELL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}
