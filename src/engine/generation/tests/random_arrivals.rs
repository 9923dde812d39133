//! Random arrivals, cancellations and sizes with very little memory: every job finishes, and the block counts are right.

use proptest::prelude::*;

use super::fake_decoder::{SchemaStep, TestJob, TestTask, answer, audit, run, scheduler, tokens};
use crate::request::{Priority, Sampling};

fn task() -> impl Strategy<Value = TestTask> {
    let place = prop_oneof![
        (0..99_u32, 1..50_usize).prop_map(|(seed, count)| SchemaStep::Forced(tokens(seed, count))),
        prop::collection::btree_set(1..50_u32, 1..9).prop_map(|ids| SchemaStep::Choice(ids.into_iter().collect())),
    ];
    let sampling =
        (prop::bool::ANY, 0.1..1.0_f32, 0..30_usize, any::<u64>()).prop_map(|(greedy, top_p, top_k, seed)| match greedy {
            true => Sampling::default(),
            false => Sampling { temperature: 0.7, top_p, top_k, seed },
        });
    prop_oneof![
        (0..90_usize, sampling, prop::option::of(prop::collection::vec(place, 0..6)))
            .prop_map(|(max_tokens, sampling, schema)| TestTask::Complete { max_tokens, sampling, schema }),
        prop::collection::vec((0..99_u32, 1..40_usize).prop_map(|(seed, count)| tokens(seed, count)), 0..5)
            .prop_map(TestTask::Score),
    ]
}

/// A job, the steps before it arrives, and the steps before its caller cancels it.
fn arrival() -> impl Strategy<Value = (TestJob, usize, Option<usize>)> {
    let prompt = (0..3_u32, 0..100_usize, any::<u32>(), 1..60_usize)
        .prop_map(|(prefix, shared, seed, own)| [&tokens(prefix, 100)[..shared], &tokens(seed, own)].concat());
    let ask = (0..3_usize, prop::bool::ANY, prompt, task()).prop_map(|(group, live, prompt, task)| TestJob {
        group: ["a", "b", "c"][group],
        priority: if live { Priority::Live } else { Priority::Backfill },
        prompt,
        task,
    });
    (ask, 0..20_usize, prop::option::weighted(0.2, 0..30_usize))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn random_arrivals_with_little_memory_all_end_as_they_should(
        arrivals in prop::collection::vec(arrival(), 1..25),
        blocks in 9..20_usize,
        rows in 1..10_usize,
        step_tokens in 1..80_usize,
    ) {
        let mut scheduler = scheduler(blocks, rows, step_tokens);
        let mut waiting = Vec::new();
        for (ask, after, stays) in &arrivals {
            for _ in 0..*after {
                scheduler.step().unwrap();
                audit(&scheduler);
                for (_, stays) in &mut waiting {
                    *stays = Option::map(*stays, |steps: usize| steps.saturating_sub(1));
                }
                waiting.iter_mut().filter(|(_, stays)| *stays == Some(0)).for_each(|(answers, _)| *answers = None);
            }
            waiting.push((Some(ask.submit(&mut scheduler)), *stays));
        }
        run(&mut scheduler);
        for ((ask, _, _), (answers, _)) in arrivals.iter().zip(&mut waiting) {
            if let Some(answers) = answers {
                prop_assert_eq!(answer(answers).prediction, ask.expected());
            }
        }
        while scheduler.prefixes.evict(&mut scheduler.blocks, |_| false) {}
        prop_assert_eq!(scheduler.blocks_used(), 0);
    }
}
