//! Leads as CSV, a page at a time, however many there are.
//!
//! A cell that a spreadsheet would take for a formula gets an apostrophe before it: names come from documents, which anybody sends.

use futures::Stream;
use futures::stream::try_unfold;

use super::view::glance;
use super::{LeadError, LeadQuery, LeadService, LeadSummary, filter, order};
use crate::failure::Transient;

/// Leads that are read at a time.
const PAGE: i64 = 500;

/// The byte order mark: without it, spreadsheets take UTF-8 for something else, and Korean names for noise.
const MARK: &str = "\u{feff}";

/// Columns before the parts of the score.
const COLUMNS: [&str; 9] = ["document_id", "score", "maximum", "above", "company", "person", "stage", "intent", "updated_at"];

impl LeadService {
    /// Every lead that the question means, as the pieces of a CSV file: a header, then a row each. Leads that change meanwhile may
    /// stand in it twice or not at all.
    ///
    /// # Errors
    /// See [`LeadError`]; the stream ends where the database is unavailable.
    pub fn export(
        &self,
        question: &LeadQuery,
    ) -> Result<impl Stream<Item = Result<String, Transient>> + Send + use<>, LeadError> {
        let (pipeline, entry) = self.pipeline(question.pipeline.as_deref())?;
        let (order, filter) = (order(question.sort.as_deref())?, filter(question)?);
        if question.limit.is_some() || question.cursor.is_some() {
            return Err(LeadError::Invalid("an export has every lead: leave out `limit` and `cursor`".into()));
        }
        let parts = entry.parts.clone();
        let header = COLUMNS.iter().map(|name| (*name).to_owned()).chain(parts.iter().map(|name| format!("part:{name}")));
        let header = format!("{MARK}{}", line(header));
        let (reader, pipeline) = (self.reader.clone(), pipeline.to_owned());
        let begin = (Some(header), Some(order.start()));
        Ok(try_unfold(begin, move |(header, place)| {
            let (reader, pipeline, filter, parts) = (reader.clone(), pipeline.clone(), filter.clone(), parts.clone());
            async move {
                if let Some(header) = header {
                    return Ok(Some((header, (None, place))));
                }
                let Some(place) = place else { return Ok(None) };
                let page = reader.leads(&pipeline, &filter, order, &place, PAGE).await?;
                let next = page.last().filter(|_| page.len() as i64 == PAGE).map(|last| order.place(last));
                if page.is_empty() {
                    return Ok(None);
                }
                let rows: String = page.into_iter().map(|lead| row(glance(lead), &parts)).collect();
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

/// Text from outside as no spreadsheet computes it.
fn safe(text: &str) -> String {
    let begins = |c: char| matches!(c, '=' | '+' | '-' | '@' | '\t' | '\r' | '\n' | '＝' | '＋' | '－' | '＠');
    if text.starts_with(begins) { format!("'{text}") } else { text.to_owned() }
}

/// Cells as one line, after RFC 4180.
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
