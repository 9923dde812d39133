//! Everyone who works on jobs in one process: the lanes of the two topics, and the foreman if it is this process's turn.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::Semaphore;

use super::coordinator::JobCoordinator;
use super::schedules::Schedule;
use super::topics::{JOBS, JobTopic, JobTopics, UNITS, serve};
use super::worker::UnitWorker;
use crate::config::JobsConfig;
use crate::pipeline::drive;
use crate::source::{KafkaSource, KafkaSourceConfig, StartAt};

/// Everyone who works on jobs in one process.
pub struct JobRunner {
    topics: Arc<JobTopics>,
    config: JobsConfig,
}

impl JobRunner {
    /// A crew for the workshop.
    pub fn new(worker: UnitWorker, config: &JobsConfig) -> Self {
        let topics = Arc::new(JobTopics {
            worker,
            places: Semaphore::new(config.units_at_a_time.max(1)),
            events_topic: config.events_topic.clone(),
            price_per_device_hour: config.price_per_device_hour,
        });
        Self { topics, config: config.clone() }
    }

    /// The foreman, who also hands units out on their topic and keeps the schedules.
    pub fn coordinator(&self, schedules: Vec<Schedule>) -> JobCoordinator {
        JobCoordinator { topics: self.topics.clone(), config: self.config.clone(), publishes_units: true, schedules }
    }

    /// Consumes the jobs topic and the units topic, each until its own one of `ends` resolves. `kafka` says how to reach them.
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
        let take_in = async move {
            let lane = |claim, records, stop, updates| {
                tokio::spawn(serve((first.clone(), JobTopic::Jobs), claim, records, stop, updates))
            };
            drive((JOBS, None), jobs, lane, end_of_jobs, drain).await
        };
        let work_off = async move {
            let lane = |claim, records, stop, updates| {
                tokio::spawn(serve((second.clone(), JobTopic::Units), claim, records, stop, updates))
            };
            drive((UNITS, None), units, lane, end_of_units, drain).await
        };
        Ok([take_in.boxed(), work_off.boxed()])
    }
}
