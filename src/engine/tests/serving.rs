//! Batches, neighbours, fairness, failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fixture::{assert_close, bert, classify, encode, start_with, texts, vectors};
use crate::{Chunking, Prediction};
use tidemill_base::config::EngineConfig;
use tidemill_base::failure::{Component, Failure, FailureClass, Poison};

#[tokio::test]
async fn batched_embedding_equals_single() {
    let (engine, texts) = (bert().engine(), texts());
    let batched = vectors(&engine, &texts).await;
    for (text, batched) in texts.iter().zip(&batched) {
        let single = vectors(&engine, std::slice::from_ref(text)).await;
        assert_close(text, batched, &single[0], 1e-5);
        let length: f32 = batched.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "the vector of {text:?} has length {length}");
    }
}

#[tokio::test]
async fn order_of_requests_decides_nothing_but_the_order_of_answers() {
    let (engine, mut texts) = (bert().engine(), texts());
    let forward = vectors(&engine, &texts).await;
    texts.reverse();
    let mut backward = vectors(&engine, &texts).await;
    backward.reverse();
    for (text, (a, b)) in texts.iter().rev().zip(forward.iter().zip(&backward)) {
        assert_close(text, a, b, 1e-5);
    }
}

#[tokio::test]
async fn tiny_token_budgets_give_the_same_rows() {
    let folder = bert().write();
    let whole = vectors(&bert().engine(), &texts()).await;
    for batch_tokens in [1, 7, 100] {
        let config = EngineConfig { threads: Some(3), batch_tokens: Some(batch_tokens), ..EngineConfig::default() };
        let cut = vectors(&start_with(folder.path(), config).unwrap(), &texts()).await;
        for (a, b) in whole.iter().zip(&cut) {
            assert_close(&format!("budget of {batch_tokens} tokens"), b, a, 1e-5);
        }
    }
}

#[tokio::test]
async fn equal_sequences_of_a_call_are_computed_once() {
    let engine = bert().engine();
    let requests = vec![encode(&["the mill", "corn"], Chunking::Truncate), encode(&["the  mill"], Chunking::Truncate)];
    let answers: Vec<_> = engine.run(requests).await.unwrap().into_iter().map(Result::unwrap).collect();
    let (Prediction::Vectors(first), Prediction::Vectors(second)) = (&answers[0].prediction, &answers[1].prediction) else {
        panic!("encoders answer with vectors")
    };
    assert!(
        Arc::ptr_eq(&first[0].chunks[0].vector, &second[0].chunks[0].vector),
        "the second call for the same tokens has a vector of its own"
    );
    assert_eq!((answers[0].tokens, answers[1].tokens), (10, 0), "tokens are paid for once");
    assert_eq!(engine.stats().tokens, 10);
    assert_eq!(second[0].chunks[0].tokens, 4);
}

#[tokio::test]
async fn one_bad_request_fails_alone() {
    let engine = bert().engine();
    let mut foreign = encode(&["x"], Chunking::Truncate);
    foreign.model = "other".into();
    let requests = vec![encode(&["x"], Chunking::Truncate), foreign, classify("x"), encode(&["y"], Chunking::Truncate)];
    let answers = engine.run(requests).await.unwrap();
    assert!(answers[0].is_ok() && answers[3].is_ok());
    for bad in &answers[1..3] {
        let Err(Failure::Poison(Poison { class, reason })) = bad else { panic!("expected poison, got {bad:?}") };
        assert_eq!(*class, FailureClass::Model, "{reason}");
    }
    assert!(engine.run(Vec::new()).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_calls_get_their_own_rows() {
    let folder = bert().write();
    let engine =
        start_with(folder.path(), EngineConfig { threads: Some(2), batch_tokens: Some(64), ..EngineConfig::default() }).unwrap();
    let expected = vectors(&engine, &texts()).await;
    let calls = (0..20).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move { vectors(&engine, &texts()).await })
    });
    for call in futures::future::join_all(calls).await {
        for (a, b) in call.unwrap().iter().zip(&expected) {
            assert_close("a row of a concurrent call", a, b, 1e-5);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn short_text_does_not_wait_behind_a_book() {
    let folder = bert().write();
    let engine =
        start_with(folder.path(), EngineConfig { threads: Some(1), batch_tokens: Some(256), ..EngineConfig::default() }).unwrap();
    // No two chunks alike: equal ones would be computed once.
    let words: Vec<String> = (0..26_u32.pow(3))
        .map(|i| [i / 676, i / 26 % 26, i % 26].map(|letter| char::from(b'a' + letter as u8)).iter().collect())
        .collect();
    let book = words.join(" ");
    let reader = engine.clone();
    let reading =
        tokio::spawn(async move { reader.run(vec![encode(&[&book], Chunking::Split { tokens: 32, overlap: 16 })]).await });
    while engine.stats().batches == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = engine.stats().tokens;
    vectors(&engine, &["a short question".to_owned()]).await;
    let waited = engine.stats().tokens - before;
    let read = reading.await.unwrap().unwrap().remove(0).unwrap().tokens;
    assert!(waited < u64::from(read / 4), "a short question waited while the device read {waited} of a book's {read} tokens");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_calls_with_much_to_do_one_ends_long_before_the_other() {
    let folder = bert().write();
    let config = EngineConfig { threads: Some(1), batch_tokens: Some(64), ..EngineConfig::default() };
    let engine = start_with(folder.path(), config).unwrap();
    let call = async |name: &str| {
        // In letters, which the vocabulary has: numbers would all be the same unknown token, and equal texts are computed once.
        let word = |n: u32| [n / 676, n / 26 % 26, n % 26].map(|digit| char::from(b'a' + digit as u8)).iter().collect::<String>();
        let texts: Vec<String> = (0..4_000).map(|n| format!("{name} has so many words {}", word(n))).collect();
        vectors(&engine, &texts).await;
        engine.stats().tokens
    };
    let (one, other) = tokio::join!(call("this"), call("that"));
    let (first, last) = (one.min(other), one.max(other));
    assert!(first < last / 4 * 3, "the first call ended when {first} of all {last} tokens were computed");
}

#[tokio::test]
async fn panic_on_the_device_reaches_every_caller_and_health() {
    let engine = bert().engine();
    engine.health().unwrap();
    // A sequence longer than the position table is what `run` never lets through.
    let broken: Arc<[u32]> = vec![1; 1000].into();
    let transient = engine
        .rows(&[(0, broken)], engine.inner.activity.begin_preparation())
        .await
        .expect_err("a row from a device that panicked");
    assert_eq!(transient.component, Component::Model);
    assert_eq!(engine.health().unwrap_err().component, Component::Model);
    let refused = tokio::time::timeout(Duration::from_secs(5), engine.run(vec![encode(&["x"], Chunking::Truncate)])).await;
    assert!(refused.expect("a call after the panic hangs").is_err());
}

#[tokio::test]
async fn dropping_the_last_engine_frees_the_models() {
    let engine = bert().engine();
    vectors(&engine, &["x".to_owned()]).await;
    let models = Arc::downgrade(&engine.inner.models);
    let other = engine.clone();
    drop(engine);
    vectors(&other, &["x".to_owned()]).await;
    drop(other);
    let deadline = Instant::now() + Duration::from_secs(5);
    while models.upgrade().is_some() {
        assert!(Instant::now() < deadline, "the engine's threads still hold the models after five seconds");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn dropped_calls_give_their_room_back() {
    let engine = bert().engine();
    let room = engine.inner.encoder_capacity.free();
    let call = engine.run(texts().iter().map(|text| encode(&[text], Chunking::Truncate)).collect());
    let _ = tokio::time::timeout(Duration::from_millis(1), call).await;
    let deadline = Instant::now() + Duration::from_secs(5);
    while engine.inner.encoder_capacity.free() < room {
        assert!(
            Instant::now() < deadline,
            "a call that went away keeps {} tokens of room",
            room - engine.inner.encoder_capacity.free()
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
