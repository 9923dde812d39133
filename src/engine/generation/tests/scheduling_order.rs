//! Tests which sequences go first, which wait, and which are refused.

use super::fake_decoder::{AnswerReceiver, TestJob, TestTask, answer, audit, run, scheduler, tokens, write};
use crate::request::Priority;
use tidemill_base::failure::{Failure, FailureClass};

#[test]
fn live_goes_before_backfill_even_where_backfill_has_the_device() {
    let mut scheduler = scheduler(100, 4, 64);
    let mut old: Vec<_> = (0..8).map(|i| write("old", tokens(i, 20), 30).backfill().submit(&mut scheduler)).collect();
    for _ in 0..3 {
        scheduler.step().unwrap();
    }
    let jobs: Vec<TestJob> = (0..6).map(|i| write("new", tokens(100 + i, 20), 30)).collect();
    let mut new: Vec<_> = jobs.iter().map(|job| job.submit(&mut scheduler)).collect();
    while new.iter().any(|answers| answers.is_empty()) {
        let done = |old: &[AnswerReceiver]| old.iter().filter(|answers| !answers.is_empty()).count();
        let before = done(&old);
        scheduler.step().unwrap();
        audit(&scheduler);
        let live = scheduler.running.values().filter(|one| one.job.priority == Priority::Live).count();
        let waits = scheduler.waiting.waiting_priorities().contains(&Priority::Live);
        assert!(live == scheduler.running() || !waits, "live work waits while backfill is running");
        assert!(live < 4 || done(&old) == before, "backfill advanced while live work used all rows");
    }
    run(&mut scheduler);
    assert!(new.iter_mut().zip(&jobs).all(|(got, job)| answer(got).prediction == job.expected()));
    old.iter_mut().for_each(|answers| drop(answer(answers)));
}

#[test]
fn a_group_with_little_to_do_does_not_wait_for_one_with_much() {
    let mut scheduler = scheduler(100, 4, 64);
    let mut much: Vec<_> = (0..40).map(|i| write("much", tokens(i, 20), 10).submit(&mut scheduler)).collect();
    for _ in 0..5 {
        scheduler.step().unwrap();
    }
    let little: Vec<_> = (0..4).map(|i| write("little", tokens(100 + i, 20), 10).submit(&mut scheduler)).collect();
    while little.iter().any(|answers| answers.is_empty()) {
        scheduler.step().unwrap();
    }
    let before = much.iter_mut().filter(|answers| !answers.is_empty()).count();
    assert!(before <= 16, "a group of 4 requests waited for {before} of another's 40");
}

#[test]
fn an_odd_prompt_does_not_hold_its_group_up() {
    let prefix = tokens(1, 90);
    let mut scheduler = scheduler(100, 8, 16);
    let alike = |seed| write("a", [prefix.clone(), tokens(seed, 5)].concat(), 3);
    let mut first = alike(2).submit(&mut scheduler);
    let mut second = alike(3).submit(&mut scheduler);
    let mut odd = write("a", [&prefix[..40], &tokens(4, 5)].concat(), 3).submit(&mut scheduler);
    run(&mut scheduler);
    assert_eq!(answer(&mut first).tokens, 95);
    assert_eq!(answer(&mut second).tokens, 5);
    assert_eq!(answer(&mut odd).tokens, 5);
}

#[test]
fn whoever_has_gone_away_leaves_the_device() {
    let mut scheduler = scheduler(100, 2, 16);
    let prefix = tokens(1, 90);
    let reader = write("a", [prefix.clone(), tokens(2, 5)].concat(), 50).submit(&mut scheduler);
    let job = write("a", [prefix, tokens(3, 5)].concat(), 5);
    let mut follower = job.submit(&mut scheduler);
    let third = write("b", tokens(4, 40), 50).submit(&mut scheduler);
    let fourth = write("b", tokens(5, 40), 50).submit(&mut scheduler);
    scheduler.step().unwrap();
    assert_eq!(scheduler.running(), 2);
    drop((reader, third, fourth));
    run(&mut scheduler);
    assert_eq!(answer(&mut follower).prediction, job.expected(), "it reads the prefix itself");
    while scheduler.prefixes.evict(&mut scheduler.blocks, |_| false) {}
    assert_eq!(scheduler.blocks_used(), 0);
}

#[test]
fn what_can_never_fit_is_told_so_at_once() {
    let mut scheduler = scheduler(4, 8, 64);
    let mut long = write("a", tokens(1, 100), 29).submit(&mut scheduler);
    let Failure::Poison(poison) = long.try_recv().unwrap().1.unwrap_err() else { panic!("expected poison") };
    assert_eq!(poison.class, FailureClass::TooLong);
    assert!(poison.reason.contains("100 tokens and 29 more") && poison.reason.contains("holds 128"), "{}", poison.reason);
    let mut fits = write("a", tokens(1, 100), 28).submit(&mut scheduler);
    let answers = vec![tokens(2, 29)];
    let mut scored = TestJob { task: TestTask::Score(answers), ..write("a", tokens(1, 60), 0) }.submit(&mut scheduler);
    let mut heavy = TestJob { task: TestTask::Score(vec![tokens(2, 29)]), ..write("a", tokens(1, 70), 0) }.submit(&mut scheduler);
    run(&mut scheduler);
    answer(&mut fits);
    answer(&mut scored);
    assert!(heavy.try_recv().unwrap().1.is_err());
}

#[test]
fn what_the_device_has_no_memory_for_fails_alone() {
    let mut scheduler = scheduler(60, 8, 40);
    scheduler.decoder.longest = 100;
    let prefix = tokens(1, 50);
    let fits = |seed: u32| write("a", [prefix.clone(), tokens(seed, 7)].concat(), 30);
    let first = TestJob { task: TestTask::Score(vec![tokens(9, 8), tokens(8, 3)]), ..write("a", prefix.clone(), 0) };
    // One is refused while its prompt is read, one while it generates, and one while its longer answer is scored.
    let read = write("a", [prefix.clone(), tokens(2, 70)].concat(), 5);
    let written = write("a", [prefix.clone(), tokens(3, 40)].concat(), 45);
    let scored = TestJob { task: TestTask::Score(vec![tokens(4, 3), tokens(5, 90)]), ..write("a", prefix.clone(), 0) };
    let mut refused: Vec<_> = [&read, &written, &scored].map(|job| job.submit(&mut scheduler)).into();
    let jobs = [fits(4), first, fits(5)];
    let mut others: Vec<_> = jobs.iter().map(|job| job.submit(&mut scheduler)).collect();
    run(&mut scheduler);
    for answers in &mut refused {
        let Failure::Poison(poison) = answers.try_recv().unwrap().1.unwrap_err() else { panic!("expected poison") };
        assert_eq!(poison.class, FailureClass::Model);
        assert!(
            poison.reason.contains("too little memory") && poison.reason.contains("engine.kv_cache_mib"),
            "{}",
            poison.reason
        );
    }
    for (job, answers) in jobs.iter().zip(&mut others) {
        assert_eq!(answer(answers).prediction, job.expected());
    }
    while scheduler.prefixes.evict(&mut scheduler.blocks, |_| false) {}
    assert_eq!(scheduler.blocks_used(), 0, "blocks of refused sequences are still held");
}

#[test]
fn prefixes_give_way_before_sequences_do() {
    let mut scheduler = scheduler(12, 8, 512);
    for group in ["a", "b", "c"] {
        let prefix = tokens(group.len() as u32, 64);
        for seed in 0..3 {
            let _ = write(group, [prefix.clone(), tokens(seed, 5)].concat(), 3).submit(&mut scheduler);
        }
    }
    let kept: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .flat_map(|group| (0..3).map(move |seed| write(group, [tokens(50, 64), tokens(seed, 5)].concat(), 3)))
        .map(|job| job.submit(&mut scheduler))
        .collect();
    run(&mut scheduler);
    assert!(kept.iter().all(|answers| !answers.is_empty()));
    assert!(scheduler.prefixes.tables().count() > 1, "no prefix was kept");
    scheduler.take_counts();
    let mut large: Vec<_> = (0..2).map(|i| write("d", tokens(60 + i, 150), 20).submit(&mut scheduler)).collect();
    run(&mut scheduler);
    large.iter_mut().for_each(|answers| drop(answer(answers)));
    assert_eq!(scheduler.take_counts().preemptions, 0);
}

#[test]
fn what_needs_no_reading_takes_no_step() {
    let mut scheduler = scheduler(4, 8, 64);
    let mut nothing = write("a", tokens(1, 10), 0).submit(&mut scheduler);
    assert!(scheduler.is_idle());
    assert_eq!(answer(&mut nothing).generated, 0);
}
