//! Runs jobs in one process: consumes the two topics, and builds the coordinator.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Semaphore;

use super::coordinator::JobCoordinator;
use super::schedules::Schedule;
use super::topics::{JOBS, JobTopic, JobTopics, UNITS, consume};
use super::worker::UnitWorker;
use crate::config::JobsConfig;
use crate::pipeline::run_workers;
use crate::source::{KafkaSource, KafkaSourceConfig, StartAt};

/// Runs jobs in one process.
pub struct JobRunner {
    topics: Arc<JobTopics>,
    config: JobsConfig,
}

impl JobRunner {
    /// A runner whose units are processed by `worker`.
    pub fn new(worker: UnitWorker, config: &JobsConfig) -> Self {
        let topics = Arc::new(JobTopics {
            worker,
            unit_permits: Semaphore::new(config.units_at_a_time.max(1)),
            events_topic: config.events_topic.clone(),
            price_per_device_hour: config.price_per_device_hour,
        });
        Self { topics, config: config.clone() }
    }

    /// The coordinator, which also publishes units to their topic and fires the schedules.
    pub fn coordinator(&self, schedules: Vec<Schedule>) -> JobCoordinator {
        JobCoordinator { topics: self.topics.clone(), config: self.config.clone(), publishes_units: true, schedules }
    }

    /// Consumes the jobs topic until the first of `ends` resolves, and the units topic until the second does. `kafka` has the
    /// connection.
    ///
    /// # Errors
    /// Where librdkafka refuses a setting.
    pub fn start(
        &self,
        kafka: &KafkaSourceConfig,
        ends: [BoxFuture<'static, ()>; 2],
        drain: Duration,
    ) -> Result<[BoxFuture<'static, Result<()>>; 2]> {
        let source = |pipeline: &str, topic: &str| {
            let (pipeline, topic) = (pipeline.into(), topic.into());
            let config = KafkaSourceConfig { pipeline, topic, start: StartAt::Earliest, ..kafka.clone() };
            KafkaSource::start(config, self.topics.worker.store.clone(), self.topics.worker.health.clone())
        };
        let (jobs, units) = (source(JOBS, &self.config.topic)?, source(UNITS, &self.config.units_topic)?);
        let [end_of_jobs, end_of_units] = ends;
        let (first, second) = (self.topics.clone(), self.topics.clone());
        let consume_jobs = async move {
            let start = |claim, records, stop, updates| {
                tokio::spawn(consume(first.clone(), JobTopic::Jobs, claim, records, stop, updates))
            };
            let (source, events) = jobs;
            run_workers(JOBS, None, source, events, start, end_of_jobs, drain).await
        };
        let consume_units = async move {
            let start = |claim, records, stop, updates| {
                tokio::spawn(consume(second.clone(), JobTopic::Units, claim, records, stop, updates))
            };
            let (source, events) = units;
            run_workers(UNITS, None, source, events, start, end_of_units, drain).await
        };
        Ok([consume_jobs.boxed(), consume_units.boxed()])
    }
}
