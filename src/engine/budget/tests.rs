//! Which budget is chosen, when it is measured, and what is saved.

use std::convert::Infallible;
use std::fs;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::budget::measurement::TimedBatch;
use crate::tests::fixture::{NAME, bert, start_tuned, vectors};
use tidemill_base::config::EngineConfig;

fn measured(rates: &[(usize, f64)]) -> Vec<BudgetRate> {
    rates.iter().map(|(batch_tokens, rate)| BudgetRate { batch_tokens: *batch_tokens, tokens_per_second: *rate }).collect()
}

/// The chosen budget if the smaller of two near ones has `share` of the larger one's rate, and which two were compared.
fn chosen(rates: &[(usize, f64)], share: Option<f64>) -> (usize, Option<(usize, usize)>) {
    let mut two = None;
    let chosen = choose(&measured(rates), 4096, |smaller, larger| {
        two = Some((smaller, larger));
        Ok::<_, Infallible>(share)
    });
    (chosen.unwrap(), two)
}

#[test]
fn the_smallest_budget_near_the_best_is_chosen_where_it_is_as_good() {
    let rising = [(512, 60.0), (1024, 89.0), (2048, 92.0), (4096, 100.0), (8192, 99.0)];
    assert_eq!(chosen(&rising, Some(0.98)), (2048, Some((2048, 4096))));
    assert_eq!(chosen(&rising, Some(0.97)), (4096, Some((2048, 4096))));
    assert_eq!(chosen(&rising, None), (4096, Some((2048, 4096))), "no time for pairs: the best of the sweep");
    let falling = [(1024, 100.0), (2048, 99.0), (4096, 91.0)];
    assert_eq!(chosen(&falling, Some(1.0)), (1024, Some((1024, 4096))));
    assert_eq!(chosen(&falling, Some(0.9)), (4096, Some((1024, 4096))), "a sweep may be wrong about the best");
    assert_eq!(chosen(&falling, None).0, 1024);
    let alone = [(512, 50.0), (4096, 80.0), (8192, 100.0)];
    assert_eq!(chosen(&alone, Some(2.0)), (8192, None), "no other one is near");
}

#[test]
fn the_usual_budget_stays_where_it_could_not_be_measured() {
    assert_eq!(chosen(&[(512, 1.0), (1024, 1.1)], Some(1.0)), (4096, None));
    assert_eq!(chosen(&[], Some(1.0)), (4096, None));
}

#[test]
fn budgets_lie_around_the_usual_one() {
    assert_eq!(candidates(4096), [512, 1024, 2048, 4096, 8192]);
    assert_eq!(candidates(1), [1, 1, 1, 1, 2], "never none");
}

/// A device on which a batch takes `base` milliseconds, plus `each` for every thousand tokens.
fn swept(candidates: &[usize], base: f64, each: f64) -> (Vec<BudgetRate>, Vec<usize>) {
    let mut asked = Vec::new();
    let measured = sweep(candidates, |tokens| {
        asked.push(tokens);
        let time = Duration::from_secs_f64((base + each * tokens as f64 / 1000.0) / 1000.0);
        Ok::<_, Infallible>(TimedBatch { tokens, time })
    });
    (measured.unwrap(), asked)
}

#[test]
fn every_budget_is_measured_in_turns_and_for_about_as_long() {
    let (found, asked) = swept(&[500, 1000, 2000], 10.0, 10.0);
    let rates: Vec<i64> = found.iter().map(|one| one.tokens_per_second.round() as i64).collect();
    assert_eq!(rates, [33_333, 50_000, 66_667]);
    let times = |tokens: usize| asked[1..].iter().filter(|asked| **asked == tokens).count();
    assert_eq!(times(500), 32, "the maximum number");
    assert!((20..=32).contains(&times(1000)) && (15..=32).contains(&times(2000)), "{asked:?}");
    assert_eq!(asked[1..4], [500, 1000, 2000], "each is measured once before any is measured twice");
}

#[test]
fn a_budget_for_which_there_is_no_time_is_left_out() {
    // One second per thousand tokens: of two seconds, one is left after two batches of 500, and nothing after one of 1000.
    let (found, asked) = swept(&[500, 1000, 4000], 0.0, 1000.0);
    assert_eq!(asked, [500, 500, 1000]);
    assert_eq!(found.iter().map(|one| one.batch_tokens).collect::<Vec<_>>(), [500, 1000]);
    let (found, asked) = swept(&[500, 1000], 0.0, 10_000.0);
    assert_eq!((found, asked), (Vec::new(), vec![500]), "one batch took all the time");
}

#[test]
fn two_budgets_are_compared_in_pairs_of_as_many_tokens_whatever_else_the_machine_does() {
    let mut asked = Vec::new();
    let share = compare(1000, 2000, |tokens| {
        asked.push(tokens);
        // The machine's speed doubles or halves from pair to pair, which is far more than budgets differ by.
        let pace = [10.0, 20.0][(asked.len() - 1) / 3 % 2];
        Ok::<_, Infallible>(TimedBatch { tokens, time: Duration::from_secs_f64((2.0 + pace * tokens as f64 / 1000.0) / 1000.0) })
    });
    let share = share.unwrap().unwrap();
    assert!((0.91..0.92).contains(&share), "the times are 22 and 24 milliseconds, or 42 and 44: {share}");
    assert_eq!(asked[..6], [1000, 1000, 2000, 2000, 1000, 1000], "the order alternates");
    assert_eq!(asked.len(), 3 * 31, "66 milliseconds on average, for two seconds");
}

#[test]
fn two_budgets_are_not_compared_where_a_pair_takes_too_long() {
    let mut asked = 0;
    let share = compare(1000, 2000, |tokens| {
        asked += 1;
        Ok::<_, Infallible>(TimedBatch { tokens, time: Duration::from_millis(300) })
    });
    assert_eq!((share, asked), (Ok(Some(0.5)), 9), "900 milliseconds a pair: three of them");
    let slow = compare(1000, 2000, |tokens| Ok::<_, Infallible>(TimedBatch { tokens, time: Duration::from_millis(400) }));
    assert_eq!(slow, Ok(None), "1200 milliseconds a pair");
}

#[test]
fn what_was_kept_is_recalled_for_the_same_model_and_device_alone() {
    let folder = tempfile::tempdir().unwrap();
    let key = BudgetKey::new("0123456789abcdef", "cpu, 2 threads");
    assert_eq!(key.load(folder.path(), &[512]), None, "nothing has been saved yet");
    key.save(folder.path(), 512);
    assert_eq!(key.load(folder.path(), &[512, 1024]), Some(512));
    assert_eq!(key.load(folder.path(), &[1024]), None, "not a candidate");
    assert_eq!(BudgetKey::new("0123456789abcdef", "cpu, 4 threads").load(folder.path(), &[512]), None);
    assert_eq!(BudgetKey::new("fedcba9876543210", "cpu, 2 threads").load(folder.path(), &[512]), None);
    key.save(folder.path(), 1024);
    assert_eq!(key.load(folder.path(), &[512, 1024]), Some(1024), "the newer one counts");
    assert_eq!(fs::read_dir(key.path(folder.path()).parent().unwrap()).unwrap().count(), 1, "no other file is left");
}

#[test]
fn a_broken_or_foreign_file_is_taken_for_none_and_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let (key, foreign) = (BudgetKey::new("aa", "cpu"), BudgetKey::new("bb", "cpu"));
    foreign.save(folder.path(), 512);
    let of_another = fs::read_to_string(foreign.path(folder.path())).unwrap();
    for text in ["", "{", "null", "{\"batch_tokens\":512}", &of_another, &of_another.replace("512", "-1")] {
        fs::write(key.path(folder.path()), text).unwrap();
        assert_eq!(key.load(folder.path(), &[512]), None, "{text}");
        key.save(folder.path(), 512);
        assert_eq!(key.load(folder.path(), &[512]), Some(512), "after {text}");
    }
}

#[test]
fn a_folder_that_cannot_be_written_costs_a_measurement_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "no folder").unwrap();
    let key = BudgetKey::new("aa", "cpu");
    key.save(&file, 512);
    assert_eq!(key.load(&file, &[512]), None);
}

/// The saved budgets in a folder.
fn saved_files(folder: &Path) -> Vec<String> {
    let files = fs::read_dir(folder.join("batch-tokens")).into_iter().flatten();
    files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
}

#[test]
fn a_service_measures_once_and_a_command_never() {
    let (model, folder) = (bert().write(), tempfile::tempdir().unwrap());
    let config = EngineConfig { threads: Some(1), ..EngineConfig::default() };
    let start = |tuning: &BatchTuning| start_tuned(model.path(), &config, tuning);
    let default_budget = start(&BatchTuning::remembered(Some(folder.path().into()))).batch_tokens(NAME);
    assert_eq!((default_budget, saved_files(folder.path())), (Some(2048), Vec::new()), "a command neither measures nor saves");
    let first = start(&BatchTuning::measured(Some(folder.path().into()))).batch_tokens(NAME).unwrap();
    assert!(candidates(2048).contains(&first), "{first} tokens");
    let files = saved_files(folder.path());
    assert!(files.len() == 1 && files[0].contains(&format!("\"batch_tokens\": {first}")), "{files:?}");
    // Another budget than the measured one: a start that measures again would not find it.
    let other = candidates(2048).into_iter().find(|budget| *budget != first).unwrap();
    let path = fs::read_dir(folder.path().join("batch-tokens")).unwrap().next().unwrap().unwrap().path();
    let line = |budget: usize| format!("\"batch_tokens\": {budget}");
    fs::write(&path, files[0].replace(&line(first), &line(other))).unwrap();
    for tuning in [BatchTuning::measured(Some(folder.path().into())), BatchTuning::remembered(Some(folder.path().into()))] {
        assert_eq!(start(&tuning).batch_tokens(NAME), Some(other), "with {tuning:?}");
    }
    let configured = EngineConfig { batch_tokens: Some(77), ..config.clone() };
    let tuning = BatchTuning::measured(Some(folder.path().into()));
    assert_eq!(start_tuned(model.path(), &configured, &tuning).batch_tokens(NAME), Some(77), "a configured budget wins");
}

#[tokio::test]
async fn a_measured_engine_gives_the_rows_of_any_other() {
    let model = bert().write();
    let config = EngineConfig { threads: Some(2), ..EngineConfig::default() };
    let texts = ["the mill".to_owned(), "corn and the mill".to_owned()];
    let plain = vectors(&start_tuned(model.path(), &config, &BatchTuning::default()), &texts).await;
    let engine = start_tuned(model.path(), &config, &BatchTuning::measured(None));
    assert_eq!(engine.stats().tokens, 0, "measurements do not count as work");
    assert_eq!(vectors(&engine, &texts).await, plain);
}
