//! Background work of the process: health checks, clean-up of files, and search indexes.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::engine::Engine;
use crate::failure::{Component, Transient};
use crate::health::Health;
use crate::metrics::METRICS;
use crate::sink::Dataset;
use crate::source::Registry;
use crate::store::Store;

/// How often the database and the models are checked.
pub(super) const CHECK: Duration = Duration::from_secs(1);
/// How often uncommitted files are deleted.
const CLEAN_UP: Duration = Duration::from_secs(3600);
/// The age of an uncommitted file at which it is deleted: far older than any commit can take.
const ORPHAN_AGE_SECONDS: f64 = 86_400.0;
/// How often vector spaces are looked through for those that have become large.
const INDEX: Duration = Duration::from_secs(10);
/// Changes of a pipeline's documents after which its word counts are merged: a search adds up as many rows for each word.
const COUNTS_MERGED_AFTER: i64 = 500;

/// Keeps health and metrics up to date, and deletes files that were never committed.
pub(super) async fn maintain(store: Store, engine: Engine, health: Health, registry: Option<Registry>, datasets: Vec<Dataset>) {
    let mut cleaned_up: Option<Instant> = None;
    loop {
        match store.ping().await {
            Ok(()) => health.up(Component::Database),
            Err(failure) => health.blame(&failure),
        }
        if let Err(failure) = engine.health() {
            health.blame(&failure);
        }
        if let Some(registry) = &registry {
            registry.clear_old_failure();
        }
        for dataset in &datasets {
            if let Some(free) = dataset.free_bytes() {
                METRICS.dataset_free.with_label_values(&[dataset.name()]).set(free as f64);
            }
        }
        if cleaned_up.is_none_or(|cleaned_up| cleaned_up.elapsed() >= CLEAN_UP) {
            cleaned_up = Some(Instant::now());
            for dataset in &datasets {
                if let Err(failure) = delete_orphans(&store, dataset, ORPHAN_AGE_SECONDS).await {
                    tracing::warn!(dataset = dataset.name(), %failure, "uncommitted files are deleted later");
                }
            }
            merge_word_counts(&store, 1).await;
        }
        sleep(CHECK).await;
    }
}

/// Builds an index for each vector space that has become large.
pub(super) async fn build_indexes(store: Store) {
    loop {
        match store.index_embedding_sets().await {
            Ok(built) => built.into_iter().for_each(|set| tracing::info!(set, "the vector space now has an index")),
            Err(failure) => tracing::warn!(%failure, "indexes of vector spaces are built later"),
        }
        merge_word_counts(&store, COUNTS_MERGED_AFTER).await;
        sleep(INDEX).await;
    }
}

async fn merge_word_counts(store: &Store, changes: i64) {
    if let Err(failure) = store.gather_word_counts(changes).await {
        tracing::warn!(%failure, "word counts are merged later");
    }
}

/// Deletes files that were staged at least `seconds` ago and never committed. Their rows are marked first, so that a commit that is
/// still under way cannot publish one of them.
async fn delete_orphans(store: &Store, dataset: &Dataset, seconds: f64) -> Result<(), Transient> {
    let paths = store.condemn_files(dataset.name(), seconds).await?;
    for path in &paths {
        dataset.delete(path.as_ref())?;
    }
    store.forget_files(&paths).await
}
