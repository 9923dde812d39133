//! The output depends only on the request.

use super::fake_decoder::{SchemaStep, TestJob, TestTask, answer, run, scheduler, tokens, write};
use crate::request::{Priority, Sampling};

/// Jobs of every kind: greedy, drawn, with a schema, scored; prompts shorter and longer than a block; some with a common prefix.
fn jobs() -> Vec<TestJob> {
    let drawn = |seed| Sampling { temperature: 0.8, top_p: 0.9, top_k: 20, seed };
    let schema = vec![
        SchemaStep::Forced(tokens(5, 3)),
        SchemaStep::Choice(vec![1, 2, 3]),
        SchemaStep::Choice(vec![4, 5]),
        SchemaStep::Forced(tokens(6, 40)),
        SchemaStep::Choice((1..40).collect()),
        SchemaStep::Forced(vec![9]),
    ];
    let mut jobs = Vec::new();
    for i in 0..12_u32 {
        let own = tokens(100 + i, 3 + 11 * i as usize);
        let alike = [tokens(1, 75), own.clone()].concat();
        jobs.push(write("a", alike.clone(), 20 + i as usize));
        let task = |sampling, schema| TestTask::Complete { max_tokens: 60, sampling, schema };
        let ask = |group, prompt: &[u32], task| TestJob { group, priority: Priority::Live, prompt: prompt.to_vec(), task };
        jobs.push(ask("b", &own, task(drawn(u64::from(i)), None)));
        jobs.push(ask("a", &alike, task(Sampling::default(), Some(schema.clone()))));
        let answers = vec![vec![3, 0], vec![0], tokens(i, 40), vec![3, 4, 5, 0]];
        jobs.push(ask("c", &alike, TestTask::Score(answers)).backfill());
    }
    jobs
}

#[test]
fn batched_interrupted_or_in_pieces_every_job_gets_what_it_would_get_alone() {
    let jobs = jobs();
    let mut preemptions = 0;
    for (blocks, rows, step_tokens) in
        [(400, 64, 512), (400, 64, 1), (400, 64, 7), (400, 3, 32), (400, 1, 512), (13, 64, 64), (10, 8, 33)]
    {
        let mut scheduler = scheduler(blocks, rows, step_tokens);
        let mut waiting: Vec<_> = jobs.iter().map(|job| job.submit(&mut scheduler)).collect();
        run(&mut scheduler);
        for (index, (job, waiting)) in jobs.iter().zip(&mut waiting).enumerate() {
            let got = answer(waiting).prediction;
            assert_eq!(got, job.expected(), "job {index} with {blocks} blocks, {rows} rows, {step_tokens} tokens a step");
        }
        preemptions += scheduler.take_counts().preemptions;
    }
    assert!(preemptions > 10, "only {preemptions} sequences were interrupted");
}

#[test]
fn a_shared_prefix_is_read_once_and_changes_nothing() {
    let prefix = tokens(1, 75);
    let jobs: Vec<TestJob> = (0..20).map(|i| write("a", [prefix.clone(), tokens(200 + i, 10)].concat(), 5)).collect();
    let mut scheduler = scheduler(400, 64, 512);
    let mut waiting: Vec<_> = jobs.iter().map(|job| job.submit(&mut scheduler)).collect();
    run(&mut scheduler);
    let answers: Vec<_> = waiting.iter_mut().map(answer).collect();
    for (job, answer) in jobs.iter().zip(&answers) {
        assert_eq!(answer.prediction, job.expected());
    }
    assert_eq!(answers.iter().map(|answer| answer.tokens).max(), Some(85), "the reader of the prefix is charged for it");
    assert_eq!(answers.iter().map(|answer| answer.tokens).sum::<u32>(), 75 + 20 * 10);
    let counts = scheduler.take_counts();
    assert_eq!((counts.prompt_tokens, counts.prefix_tokens_saved), (75 + 20 * 10, 19 * 75));

    let mut later = write("a", [prefix.clone(), tokens(999, 4)].concat(), 5).submit(&mut scheduler);
    run(&mut scheduler);
    assert_eq!(answer(&mut later).tokens, 4, "the prefix stays cached for later prompts");
    let mut shorter = write("a", [&prefix[..50], &tokens(998, 4)].concat(), 5).submit(&mut scheduler);
    let mut stranger = write("b", [prefix, tokens(997, 4)].concat(), 5).submit(&mut scheduler);
    run(&mut scheduler);
    assert_eq!(answer(&mut shorter).tokens, 4, "the part that agrees is used");
    assert_eq!(answer(&mut stranger).tokens, 79, "a group does not use another group's prefix");
}

#[test]
fn a_prefix_learnt_while_one_begins_so_is_taken_from_it() {
    let prefix = tokens(1, 64);
    let mut scheduler = scheduler(100, 8, 512);
    let mut first = write("a", [prefix.clone(), tokens(2, 9)].concat(), 40).submit(&mut scheduler);
    scheduler.step().unwrap();
    let mut second = write("a", [prefix, tokens(3, 9)].concat(), 3).submit(&mut scheduler);
    run(&mut scheduler);
    assert_eq!((answer(&mut first).tokens, answer(&mut second).tokens), (73, 9));
}

#[test]
fn forced_tokens_take_no_step_of_their_own() {
    let schema = vec![
        SchemaStep::Forced(tokens(1, 30)),
        SchemaStep::Choice(vec![1, 2]),
        SchemaStep::Forced(tokens(2, 30)),
        SchemaStep::Choice(vec![3]),
    ];
    let task = TestTask::Complete { max_tokens: 100, sampling: Sampling::default(), schema: Some(schema) };
    let ask = TestJob { task, ..write("a", tokens(3, 10), 0) };
    let mut scheduler = scheduler(20, 8, 512);
    let mut waiting = ask.submit(&mut scheduler);
    run(&mut scheduler);
    assert_eq!(answer(&mut waiting).prediction, ask.expected());
    assert_eq!(scheduler.take_counts().steps, 2, "one for each choice");
}
