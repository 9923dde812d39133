//! Options that choose dead letters.

use anyhow::Result;
use clap::Args;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::ConfigError;
use crate::failure::FailureClass;
use crate::store::DeadLetterFilter;

#[derive(Debug, Clone, Default, Args)]
pub struct DeadLetterFilterArgs {
    /// Only dead letters of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only dead letters of this class
    #[arg(long, value_name = "CLASS")]
    class: Option<String>,
    /// Only dead letters of this task; an empty name for those of whole records
    #[arg(long, value_name = "TASK")]
    task: Option<String>,
    /// Only dead letters written since then: a duration such as `2h`, a date, or a time such as 2026-01-31T12:00:00Z
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
}

impl DeadLetterFilterArgs {
    /// The filter, as of `now`.
    ///
    /// # Errors
    /// If the class is unknown or the time cannot be read.
    pub fn filter(&self, ids: &[i64], now: Timestamp) -> Result<DeadLetterFilter> {
        let class = self.class.as_deref().map(FailureClass::named).transpose();
        class.map_err(|problem| ConfigError(format!("--class {problem}")))?;
        Ok(DeadLetterFilter {
            ids: ids.to_vec(),
            pipeline: self.pipeline.clone(),
            class: self.class.clone(),
            task: self.task.clone(),
            since_ms: self.since.as_deref().map(|text| since(text, now)).transpose()?.map(Timestamp::as_millisecond),
            replayed: None,
        })
    }

    /// The pipeline, if one is given.
    pub fn pipeline(&self) -> Option<&str> {
        self.pipeline.as_deref()
    }
}

/// Refuses an empty filter, which would choose every dead letter, unless `--all` is given.
///
/// # Errors
/// If neither a filter nor `--all` is given, or both.
pub fn require(filter: &DeadLetterFilter, all: bool) -> Result<()> {
    match filter.is_empty() == all {
        true => Ok(()),
        false if all => Err(ConfigError("--all chooses every dead letter; leave out the other filters, or --all".into()).into()),
        false => Err(ConfigError("no dead letters are named; give their ids, a filter such as --class, or --all".into()).into()),
    }
}

fn since(text: &str, now: Timestamp) -> Result<Timestamp> {
    let ago = || text.parse::<SignedDuration>().ok().and_then(|ago| now.checked_sub(ago.abs()).ok());
    let date = || text.parse::<Date>().ok()?.to_zoned(TimeZone::UTC).ok().map(|midnight| midnight.timestamp());
    let time = text.parse::<Timestamp>().ok().or_else(date).or_else(ago);
    time.ok_or_else(|| {
        ConfigError(format!("--since `{text}` is not a time: write `2h`, 2026-01-31 or 2026-01-31T12:00:00Z")).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Option<String> {
        let now = "2026-03-01T12:00:00Z".parse().unwrap();
        since(text, now).ok().map(|time| time.to_string())
    }

    #[test]
    fn since_takes_a_duration_a_date_or_a_time() {
        assert_eq!(at("2h").as_deref(), Some("2026-03-01T10:00:00Z"));
        assert_eq!(at("1h 30m").as_deref(), Some("2026-03-01T10:30:00Z"));
        assert_eq!(at("2026-02-28").as_deref(), Some("2026-02-28T00:00:00Z"));
        assert_eq!(at("2026-02-28T06:00:00+02:00").as_deref(), Some("2026-02-28T04:00:00Z"));
        for wrong in ["", "yesterday", "2", "2026-02-30"] {
            assert_eq!(at(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn a_class_that_is_none_is_refused_with_the_nearest() {
        let class = |class: &str| {
            DeadLetterFilterArgs { class: Some(class.into()), ..DeadLetterFilterArgs::default() }.filter(&[], Timestamp::now())
        };
        assert_eq!(class("malformed_json").unwrap().class.as_deref(), Some("malformed_json"));
        let error = class("malformed-json").unwrap_err().to_string();
        assert!(error.contains("did you mean `malformed_json`?"), "{error}");
    }

    #[test]
    fn every_letter_is_meant_only_where_that_is_said() {
        let one = DeadLetterFilter { ids: vec![1], ..DeadLetterFilter::default() };
        assert!(require(&one, false).is_ok() && require(&DeadLetterFilter::default(), true).is_ok());
        assert!(require(&one, true).is_err() && require(&DeadLetterFilter::default(), false).is_err());
    }
}
