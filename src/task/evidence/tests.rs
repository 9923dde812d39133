use std::time::{Duration, Instant};

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn found<'a>(text: &'a str, value: &str) -> Option<(&'a str, MatchKind)> {
    EvidenceFinder::new(text).string(value).map(|evidence| (&text[evidence.span.start..evidence.span.end], evidence.likeness))
}

fn found_number(text: &str, number: Value) -> Option<(&str, MatchKind)> {
    let Value::Number(number) = number else { panic!("{number} is no number") };
    EvidenceFinder::new(text).number(&number).map(|evidence| (&text[evidence.span.start..evidence.span.end], evidence.likeness))
}

#[test]
fn evidence_is_exact_where_the_text_says_the_same() {
    let text = "Oak bowl\n\nA bowl of solid oak. 물레방아 나무로 만든 그릇.";
    assert_eq!(found(text, "solid oak"), Some(("solid oak", MatchKind::Exact)));
    assert_eq!(found(text, "나무"), Some(("나무", MatchKind::Exact)));
    assert_eq!(found(text, " Oak bowl "), Some(("Oak bowl", MatchKind::Exact)));
}

#[test]
fn another_number_in_words_is_not_a_few_other_letters() {
    let text = "The kettle boils its water in two minutes and switches itself off.";
    assert_eq!(found(text, "boils its water in nine minutes and switches"), None);
    assert_eq!(found(text, "boils its watre in two minutes"), Some(("boils its water in two minutes", MatchKind::Fuzzy)));
    assert_eq!(found_number(text, json!(2)), Some(("two", MatchKind::Normalized)));
    assert_eq!(found_number(text, json!(9)), None);
}

#[test]
fn a_word_of_its_own_goes_before_a_part_of_one() {
    assert_eq!(EvidenceFinder::new("handmade, by hand").string("hand").unwrap().span.start, 13);
    assert_eq!(EvidenceFinder::new("쇠나무 나무로").string("나무").unwrap().span.start, "쇠나무 ".len());
    assert_eq!(EvidenceFinder::new("red, red").string("red").unwrap().span.start, 0, "the first of equals");
}

#[test]
fn short_words_and_numbers_are_not_found_inside_others() {
    assert_eq!(found("a medium shirt", "m"), None);
    assert_eq!(found("size M shirt", "M"), Some(("M", MatchKind::Exact)));
    assert_eq!(found("110 cm", "10 cm"), None);
    assert_eq!(found("1.5 kg", "5 kg"), None);
    assert_eq!(found("holds 10 cm.", "10 cm"), Some(("10 cm", MatchKind::Exact)));
    assert_eq!(found("dunkelblau", "blau"), Some(("blau", MatchKind::Exact)), "a part of a compound");
}

#[test]
fn evidence_is_normalized_where_writing_differs() {
    let text = "ＳＴＡＩＮＬＥＳＳ\u{a0}\n steel, it’s “fine” – \u{1112}\u{1161}\u{11ab}국 Straße";
    assert_eq!(found(text, "stainless steel"), Some(("ＳＴＡＩＮＬＥＳＳ\u{a0}\n steel", MatchKind::Normalized)));
    assert_eq!(found(text, "it's \"fine\" -"), Some(("it’s “fine” –", MatchKind::Normalized)));
    assert_eq!(found(text, "한국"), Some(("\u{1112}\u{1161}\u{11ab}국", MatchKind::Normalized)));
    assert_eq!(found(text, "STRASSE"), Some(("Straße", MatchKind::Normalized)));
}

#[test]
fn evidence_is_fuzzy_where_a_few_letters_differ() {
    let text = "A bowl of Stainles Steel, made in Sheffield";
    assert_eq!(found(text, "stainless steel"), Some(("Stainles Steel", MatchKind::Fuzzy)));
    assert_eq!(found(text, "sheffeild"), None, "two letters of nine are more than a fifth");
    assert_eq!(found(text, "carbon fibre"), None);
    assert_eq!(found("", "carbon fibre"), None);
}

#[test]
fn numbers_are_found_as_they_are_written() {
    assert_eq!(found_number("costs 1,299.00 now", json!(1299)), Some(("1,299.00", MatchKind::Normalized)));
    assert_eq!(found_number("costs 1.299,00 now", json!(1299.0)), Some(("1.299,00", MatchKind::Normalized)));
    assert_eq!(found_number("costs 1299 now", json!(1299)), Some(("1299", MatchKind::Exact)));
    assert_eq!(found_number("가격은 3만 5천원", json!(35000)), Some(("3만 5천", MatchKind::Normalized)));
    assert_eq!(found_number("１２ Stück", json!(12)), Some(("１２", MatchKind::Normalized)));
    assert_eq!(found_number("costs 1299 now", json!(129)), None);
    assert_eq!(found("costs 1,299.00 now", "1299"), Some(("1,299.00", MatchKind::Normalized)), "a number in a string");
}

#[test]
fn values_that_the_schema_lists_are_choices() {
    let schema = json!({
        "type": "object",
        "properties": {
            "size": {"anyOf": [{"enum": ["S", "M"]}, {"type": "null"}]},
            "tags": {"type": "array", "items": {"$ref": "#/$defs/tag"}},
            "unit": {"const": "cm"},
            "name": {"type": "string"},
            "loop": {"$ref": "#/properties/loop"},
            "pair": {"prefixItems": [{"enum": ["a"]}], "items": {"type": "string"}},
        },
        "additionalProperties": {"enum": ["x"]},
        "$defs": {"tag": {"enum": ["new", "old"]}},
    });
    for (path, value, choice) in [
        ("/size", json!("M"), true),
        ("/size", json!("XL"), false),
        ("/tags/3", json!("old"), true),
        ("/unit", json!("cm"), true),
        ("/name", json!("cm"), false),
        ("/loop", json!("cm"), false),
        ("/pair/0", json!("a"), true),
        ("/pair/1", json!("a"), false),
        ("/other", json!("x"), true),
        ("/name/deeper", json!("x"), false),
    ] {
        assert_eq!(is_choice(&schema, path, &value), choice, "{path} {value}");
    }
}

#[test]
fn hostile_texts_are_searched_in_bounded_time() {
    let texts = [
        "a".repeat(1 << 20),
        "ab ".repeat(300_000),
        "e\u{301}\u{302}\u{303}".repeat(100_000),
        format!("e{}", "\u{301}".repeat(300_000)),
        "🇰🇷".repeat(100_000),
        "👩\u{200d}".repeat(100_000),
        "1,".repeat(400_000),
        "1 000 ".repeat(150_000),
        "\u{1100}\u{1161}".repeat(100_000),
        " \n".repeat(400_000),
    ];
    for text in texts {
        let started = Instant::now();
        let searcher = EvidenceFinder::new(&text);
        for value in ["aaaaaaaaaaaaaaaaaaab", "zzzzzzzzzzzzzzzzzz", "a", "1000000000001", "e\u{301}\u{302}"] {
            searcher.string(value);
        }
        searcher.string(&"ba".repeat(500));
        searcher.number(&31.into());
        let took = started.elapsed();
        let beginning: String = text.chars().take(6).collect();
        assert!(took < Duration::from_secs(60), "searching {} bytes of {beginning:?} took {took:?}", text.len());
    }
}

proptest! {
    #[test]
    fn every_span_slices_the_text(text in ".{0,60}", value in ".{1,12}") {
        if let Some(evidence) = EvidenceFinder::new(&text).string(&value) {
            prop_assert!(text.get(evidence.span.start..evidence.span.end).is_some_and(|part| !part.is_empty()));
        }
    }

    #[test]
    fn a_part_of_the_text_is_found_in_it(text in r"[\PC]{1,60}", from in 0usize..60, length in 8usize..30) {
        let letters: Vec<char> = text.chars().collect();
        let from = from.min(letters.len() - 1);
        let part: String = letters[from..(from + length).min(letters.len())].iter().collect();
        let cut = |neighbour: Option<&char>| neighbour.is_some_and(|c| c.is_numeric());
        let cuts_a_number = part.contains(char::is_numeric) || cut(from.checked_sub(1).and_then(|i| letters.get(i)));
        if !part.trim().is_empty() && part.chars().count() >= 4 && !cuts_a_number {
            let evidence = EvidenceFinder::new(&text).string(&part);
            prop_assert_eq!(evidence.map(|evidence| &text[evidence.span.start..evidence.span.end]), Some(part.trim()));
        }
    }

    #[test]
    fn every_number_is_found_in_plain_digits(number in any::<i32>(), cents in 0u8..100) {
        let text = format!("it is {number}.{cents:02} now");
        let value = json!(text[6..].split(' ').next().unwrap().parse::<f64>().unwrap());
        let searched = EvidenceFinder::new(&text);
        let Value::Number(value) = value else { unreachable!() };
        let evidence = searched.number(&value);
        prop_assert!(evidence.is_some(), "{}", value);
    }
}
