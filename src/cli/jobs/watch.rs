//! `tidemill jobs watch`, and `tidemill submit --wait`.

use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::json;
use tokio::time::sleep;

use super::{line, usage};
use crate::cli::progress::{Progress, RowProgress};
use crate::jobs::{JobDetails, JobService, JobServiceError};
use crate::store::JobState;

/// How often the job is looked up.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// Shows the progress of the job until it ends. Ctrl-C ends the command, not the job.
pub async fn follow(service: &JobService, id: &str, json: bool) -> Result<()> {
    let mut progress = Progress::new();
    let details = tokio::select! {
        details = wait_for_end(service, id, &mut progress) => details,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted?;
            progress.clear();
            bail!("stopped watching; job {id} continues, and `tidemill jobs watch {id}` watches it again");
        }
    };
    progress.clear();
    let details = details.map_err(usage)?;
    match json {
        true => say!("{}", json!(details)),
        false => say!("{}", line(&details.summary)),
    }
    match details.summary.state {
        JobState::Succeeded => Ok(()),
        state => match details.summary.reason {
            Some(reason) => bail!("job {id} ended as {state}: {reason}"),
            None => bail!("job {id} ended as {state}"),
        },
    }
}

async fn wait_for_end(service: &JobService, id: &str, progress: &mut Progress) -> Result<JobDetails, JobServiceError> {
    loop {
        match service.show(id).await {
            Ok(details) => {
                let summary = &details.summary;
                progress.show(&RowProgress {
                    state: summary.state.as_str(),
                    done: summary.progress.rows_done,
                    rows: summary.progress.rows,
                    rate: summary.rows_per_second,
                    left: summary.seconds_left,
                });
                if summary.state.is_final() {
                    return Ok(details);
                }
            }
            // The job continues without this command, and the command continues once the database is back.
            Err(JobServiceError::Unavailable(failure)) => tracing::warn!(%failure, "cannot look up the job at present"),
            Err(error) => return Err(error),
        }
        sleep(POLL_INTERVAL).await;
    }
}
