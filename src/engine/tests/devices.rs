//! Several devices behind one queue, and what a device does with its time.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::unbounded_channel;

use super::fixture::{NAME, bert, encode, start_with, texts, vectors};
use crate::activity::{Activity, ActivityTracker};
use crate::batch::TokenBatch;
use crate::queue::{BatchQueue, SequenceGroup};
use crate::queued_sequence::QueuedSequence;
use crate::{Chunking, Engine, EngineStats, Generate, Message, Prediction, Priority, Prompt, Request, Role, Sampling, Work};
use tidemill_base::config::{ComputeDevice, EngineConfig};

const PAUSE: Duration = Duration::from_millis(5);

/// An engine of so many devices, with one thread each.
fn engine(folder: &Path, devices: usize) -> Engine {
    let device = vec![ComputeDevice::Cpu; devices].try_into().unwrap();
    start_with(folder, EngineConfig { device, threads: Some(devices), batch_tokens: Some(64), ..EngineConfig::default() })
        .unwrap()
}

fn stats(engine: &Engine) -> Vec<EngineStats> {
    let devices = engine.inner.devices.iter().enumerate();
    devices.map(|(place, device)| device.stats(engine.inner.activity.device_time(place))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_give_the_rows_of_one_and_both_work() {
    let folder = bert().write();
    let expected = vectors(&engine(folder.path(), 1), &texts()).await;
    let both = engine(folder.path(), 2);
    for rows in join_all((0..4).map(|_| async { vectors(&both, &texts()).await })).await {
        assert!(rows == expected, "a row depends on the device that computed it");
    }
    let stats = stats(&both);
    assert!(stats.iter().all(|device| device.batches > 0), "{stats:?}");
    assert_eq!(stats.iter().map(|device| device.tokens).sum::<u64>(), both.stats().tokens, "the engine tells the sum");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_devices_write_what_one_does_and_both_work() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/generators/qwen2");
    let ask = |index: usize| {
        let content = format!("number {index}: {}", "corn ".repeat(index % 5)).into();
        let prompt =
            Prompt { messages: vec![Message { role: Role::User, content }], group: format!("group {}", index % 4).into() };
        let ask = Generate { prompt, max_tokens: 12, sampling: Sampling::default(), stop: Vec::new(), schema: None, spans: None };
        Request { model: NAME.into(), work: Work::Generate(ask) }
    };
    let written = async |engine: &Engine| {
        let answers = engine.run((0..8).map(ask).collect()).await.unwrap();
        let text = |prediction: Prediction| match prediction {
            Prediction::Completion(completion) => completion.text,
            other => panic!("expected a completion, got {other:?}"),
        };
        answers.into_iter().map(|answer| text(answer.unwrap().prediction)).collect::<Vec<_>>()
    };
    let expected = written(&engine(&folder, 1)).await;
    let both = engine(&folder, 2);
    assert_eq!(written(&both).await, expected);
    // A device writes down what it did after it has answered.
    let deadline = Instant::now() + Duration::from_secs(10);
    while stats(&both).iter().any(|device| device.steps == 0) {
        assert!(Instant::now() < deadline, "a device has done nothing: {:?}", stats(&both));
        tokio::time::sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_fails_is_named_and_takes_the_engine_with_it() {
    let folder = bert().write();
    let engine = engine(folder.path(), 2);
    let calls = (0..6).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.run(texts().iter().map(|text| encode(&[text], Chunking::Truncate)).collect()).await })
    });
    let calls: Vec<_> = calls.collect();
    // A sequence longer than the position table is what `run` never lets through.
    let broken: Arc<[u32]> = vec![1; 1000].into();
    let failure =
        engine.rows(&[(0, broken)], engine.inner.activity.begin_preparation()).await.expect_err("a row of a broken sequence");
    let failed: Vec<usize> = (0..2).filter(|place| engine.inner.devices[*place].health().is_err()).collect();
    let [place] = failed[..] else { panic!("devices {failed:?} failed of one broken sequence") };
    let health = engine.health().unwrap_err();
    assert!(health.reason.starts_with(&format!("cpu:{place}: the device thread stopped")), "{}", health.reason);
    assert_eq!(failure, health);
    for call in calls {
        let ended = tokio::time::timeout(Duration::from_secs(30), call).await;
        // What was computed before is answered; the rest hears of the failure.
        if let Err(failure) = ended.expect("a call hangs after a device has failed").unwrap() {
            assert_eq!(failure, health);
        }
    }
}

#[tokio::test]
async fn every_moment_of_a_device_is_busy_or_idle_for_one_cause() {
    let folder = bert().write();
    let before = Instant::now();
    let engine = engine(folder.path(), 1);
    let started = Instant::now();
    tokio::time::sleep(PAUSE).await;
    vectors(&engine, &texts()).await;
    let preparing = engine.inner.activity.begin_preparation();
    tokio::time::sleep(PAUSE).await;
    drop(preparing);
    let least = started.elapsed();
    let EngineStats { busy, idle, .. } = engine.stats();
    let most = before.elapsed();
    let sum = busy + idle.sum();
    assert!((least..=most).contains(&sum), "{sum:?} of {least:?} to {most:?} are counted");
    assert!(idle.no_work >= PAUSE && idle.tokenizing >= PAUSE, "{idle:?}");
    assert!(busy > Duration::ZERO && idle.forming > Duration::ZERO && idle.answering > Duration::ZERO, "{busy:?}, {idle:?}");
}

/// Sequences of these lengths of one model.
fn part(model: usize, lengths: &[usize]) -> SequenceGroup {
    let permit = Arc::new(Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap());
    let (reply, received) = unbounded_channel();
    // The one who waits for the rows stays.
    std::mem::forget(received);
    let wait = |(index, length): (usize, &usize)| QueuedSequence {
        ids: vec![1; *length].into(),
        index,
        reply: reply.clone(),
        permit: permit.clone(),
    };
    let waiting: VecDeque<QueuedSequence> = lengths.iter().enumerate().map(wait).collect();
    SequenceGroup { model, priority: Priority::Live, waiting }
}

#[test]
fn what_waits_in_the_queue_is_told_from_what_is_not_there() {
    let activity = ActivityTracker::new(["cpu"]);
    let queue = BatchQueue::new(activity.clone());
    let pause = || std::thread::sleep(PAUSE);
    pause();
    let idle = activity.device_time(0).idle;
    assert!(idle.no_work >= PAUSE && idle.forming.is_zero(), "{idle:?}");
    queue.push(part(0, &[5, 5]));
    pause();
    assert!(activity.device_time(0).idle.forming >= PAUSE, "a batch could be formed and is not");
    let no_work = activity.device_time(0).idle.no_work;
    queue.take(0, &[100]).expect("a batch");
    pause();
    assert!(activity.device_time(0).idle.forming >= 2 * PAUSE, "a batch is ready and is not taken");
    activity.batch_taken(0);
    activity.switch_to(0, Activity::Computing);
    pause();
    activity.switch_to(0, Activity::Answering);
    pause();
    activity.switch_to(0, Activity::Waiting);
    let spent = activity.device_time(0);
    assert!(spent.busy >= PAUSE && spent.idle.answering >= PAUSE, "{spent:?}");
    assert!(spent.idle.tokenizing.is_zero(), "{spent:?}");
    pause();
    assert!(activity.device_time(0).idle.no_work >= no_work + PAUSE, "the queue is empty again");
}

#[test]
fn each_model_s_batches_keep_to_its_own_budget() {
    let activity = ActivityTracker::new(["cpu"]);
    let queue = BatchQueue::new(activity.clone());
    queue.push(part(0, &[4, 4, 4, 4]));
    queue.push(part(1, &[4, 4, 4, 4]));
    let mut taken = Vec::new();
    for _ in 0..3 {
        let batch = queue.take(0, &[8, 100]).expect("a batch");
        taken.push((batch.model, batch.tokens()));
    }
    taken.sort_unstable();
    assert_eq!(taken, [(0, 8), (0, 8), (1, 16)]);
}

#[test]
fn what_came_first_ends_first_and_what_is_small_goes_before_it() {
    let queue = BatchQueue::new(ActivityTracker::new(["cpu"]));
    queue.push(part(0, &[30; 5]));
    queue.push(part(0, &[20; 5]));
    queue.push(part(0, &[7]));
    queue.push(part(0, &[6; 15]));
    let take = || {
        let batch = queue.take(0, &[100]).expect("a batch");
        let mut lengths: Vec<usize> = batch.sequences().map(<[u32]>::len).collect();
        lengths.sort_unstable_by(|a, b| b.cmp(a));
        lengths
    };
    assert_eq!(take(), [30, 30, 30, 7], "the small one does not wait, the others do");
    assert_eq!(take(), [30, 30, 20, 20], "the first part ends before the second begins");
    assert_eq!(take(), [20, 20, 20, 6, 6, 6, 6, 6, 6]);
}

#[test]
fn small_parts_get_half_of_a_batch_at_most_while_others_wait() {
    let queue = BatchQueue::new(ActivityTracker::new(["cpu"]));
    queue.push(part(0, &[50; 2]));
    (0..10).for_each(|_| queue.push(part(0, &[10])));
    let tokens = |batch: TokenBatch| batch.sequences().map(<[u32]>::len).filter(|length| *length == 50).sum::<usize>();
    assert_eq!(tokens(queue.take(0, &[100]).expect("a batch")), 50);
    assert_eq!(tokens(queue.take(0, &[100]).expect("a batch")), 50);
}

#[test]
fn a_device_that_computes_leaves_the_batch_to_one_that_waits() {
    let activity = ActivityTracker::new(["left", "right"]);
    let queue = Arc::new(BatchQueue::new(activity.clone()));
    activity.switch_to(0, Activity::Computing);
    let ahead = {
        let (queue, activity) = (queue.clone(), activity.clone());
        std::thread::spawn(move || {
            let batch = queue.take(0, &[8]).expect("a batch");
            // By now the other one has its own.
            (batch.tokens(), activity.should_yield(0))
        })
    };
    queue.push(part(0, &[8, 8]));
    let first = queue.take(1, &[8]).expect("a batch for the device that waits");
    assert_eq!(first.tokens(), 8);
    assert_eq!(ahead.join().unwrap(), (8, false));
}
