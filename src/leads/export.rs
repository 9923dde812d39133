//! All leads as CSV, read from the database page by page.
//!
//! Names come from documents of unknown senders, so a cell that a spreadsheet would read as a formula gets an apostrophe before it.

use futures::Stream;
use futures::stream::try_unfold;

use super::view::summary;
use super::{LeadError, LeadQuery, LeadService, LeadSummary, filter, order};
use crate::failure::Transient;

/// How many leads are read at a time.
const PAGE: i64 = 500;

/// Without the byte order mark, spreadsheets do not read the file as UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The columns before the parts of the score.
const COLUMNS: [&str; 9] = ["document_id", "score", "maximum", "above", "company", "person", "stage", "intent", "updated_at"];

impl LeadService {
    /// Every lead that matches the query, as the parts of a CSV file: a header, then one row a lead. A lead that changes during the
    /// export may appear twice or not at all.
    ///
    /// # Errors
    /// See [`LeadError`]. The stream fails if the database becomes unavailable.
    pub fn export(&self, query: &LeadQuery) -> Result<impl Stream<Item = Result<String, Transient>> + Send + use<>, LeadError> {
        let (name, pipeline) = self.pipeline(query.pipeline.as_deref())?;
        let (order, filter) = (order(query.sort.as_deref())?, filter(query)?);
        if query.limit.is_some() || query.cursor.is_some() {
            return Err(LeadError::Invalid("an export has every lead; omit `limit` and `cursor`".into()));
        }
        let parts = pipeline.parts.clone();
        let header = COLUMNS.iter().map(|name| (*name).to_owned()).chain(parts.iter().map(|name| format!("part:{name}")));
        let header = format!("{BYTE_ORDER_MARK}{}", line(header));
        let (reader, name) = (self.reader.clone(), name.to_owned());
        let begin = (Some(header), Some(order.start()));
        Ok(try_unfold(begin, move |(header, page_end)| {
            let (reader, name, filter, parts) = (reader.clone(), name.clone(), filter.clone(), parts.clone());
            async move {
                if let Some(header) = header {
                    return Ok(Some((header, (None, page_end))));
                }
                let Some(page_end) = page_end else { return Ok(None) };
                let page = reader.leads(&name, &filter, order, &page_end, PAGE).await?;
                let next = page.last().filter(|_| page.len() as i64 == PAGE).map(|last| order.place(last));
                if page.is_empty() {
                    return Ok(None);
                }
                let rows: String = page.into_iter().map(|lead| row(summary(lead), &parts)).collect();
                Ok(Some((rows, (None, next))))
            }
        }))
    }
}

fn row(lead: LeadSummary, parts: &[String]) -> String {
    let time = jiff::Timestamp::from_millisecond(lead.updated_at_ms).map(|time| time.to_string()).unwrap_or_default();
    let own = [
        safe(&lead.document_id),
        lead.score.to_string(),
        lead.maximum.to_string(),
        lead.above.to_string(),
        safe(lead.company.as_deref().unwrap_or_default()),
        safe(lead.person.as_deref().unwrap_or_default()),
        safe(lead.stage.as_deref().unwrap_or_default()),
        safe(lead.intent.as_deref().unwrap_or_default()),
        time,
    ];
    let value = |name: &String| lead.parts.iter().find(|part| part.name == *name).map(|part| part.value.to_string());
    line(own.into_iter().chain(parts.iter().map(|name| value(name).unwrap_or_default())))
}

/// The text with an apostrophe before it if a spreadsheet would read it as a formula.
fn safe(text: &str) -> String {
    let begins = |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    if text.starts_with(begins) { format!("'{text}") } else { text.to_owned() }
}

/// A line of CSV as in RFC 4180.
fn line(cells: impl Iterator<Item = String>) -> String {
    let quoted = cells.map(|cell| match cell.contains(['"', ',', '\r', '\n', ';', '\t']) {
        true => format!("\"{}\"", cell.replace('"', "\"\"")),
        false => cell,
    });
    format!("{}\r\n", quoted.collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::super::LeadPart;
    use super::*;

    fn lead(company: &str) -> LeadSummary {
        LeadSummary {
            document_id: "d-1".into(),
            score: 72.5,
            maximum: 100.0,
            parts: vec![
                LeadPart { name: "intent".into(), value: -2.5, formula: "x".into() },
                LeadPart { name: "old".into(), value: 1.0, formula: "y".into() },
            ],
            company: Some(company.into()),
            account: None,
            person: None,
            stage: Some("buying".into()),
            intent: None,
            above: true,
            updated_at_ms: 0,
        }
    }

    #[test]
    fn a_lead_is_a_row_with_a_column_for_each_part() {
        let parts = ["intent".to_owned(), "budget".to_owned()];
        let expected = "d-1,72.5,100,true,\"Bell, Moor \"\"&\"\" Co\",,buying,,1970-01-01T00:00:00Z,-2.5,\r\n";
        assert_eq!(row(lead("Bell, Moor \"&\" Co"), &parts), expected);
    }

    #[test]
    fn what_a_spreadsheet_would_compute_is_text() {
        for formula in ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "＝1"] {
            assert_eq!(safe(formula), format!("'{formula}"));
        }
        assert_eq!((safe("a=b"), safe("")), ("a=b".into(), String::new()));
        assert!(row(lead("=HYPERLINK(\"http://x\")"), &[]).contains("\"'=HYPERLINK(\"\"http://x\"\")\""));
    }
}
