use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;

use super::*;

/// A source with texts that a model led astray would write, and texts that say what the source says.
#[derive(Deserialize)]
struct Case {
    source: String,
    attacks: Vec<String>,
    honest: Vec<String>,
}

const CASES: &str = include_str!("tests/cases.jsonl");

/// The share of novel words that `write` allows.
const NOVEL_WORDS: f64 = 0.2;

fn cases() -> Vec<Case> {
    CASES.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn judged(source: &str, text: &str, novel_words: f64) -> Vec<UnsupportedClaim> {
    let mut sources = Sources::default();
    sources.add_text(source);
    sources.unsupported(text, novel_words)
}

/// Kind and words of each claim. Words of the text's own are allowed.
fn said(source: &str, text: &str) -> Vec<String> {
    judged(source, text, 1.0).iter().map(|claim| format!("{:?} {}", claim.kind, claim.says)).collect()
}

#[test]
fn few_attacks_pass_and_few_honest_texts_are_objected_to() {
    let (mut passed, mut objected) = (Vec::new(), Vec::new());
    let (mut attacks, mut honest, mut korean) = (0, 0, 0);
    for case in cases() {
        attacks += case.attacks.len();
        honest += case.honest.len();
        korean += case.attacks.iter().filter(|text| text.chars().any(folded_words::is_hangul)).count();
        passed.extend(case.attacks.into_iter().filter(|text| judged(&case.source, text, NOVEL_WORDS).is_empty()));
        let claims = |text: String| {
            let claims = judged(&case.source, &text, NOVEL_WORDS);
            let says: Vec<_> = claims.iter().map(|claim| format!("{:?} {}", claim.kind, claim.says)).collect();
            (!says.is_empty()).then(|| format!("{text} -- {says:?}"))
        };
        objected.extend(case.honest.into_iter().filter_map(claims));
    }
    assert_eq!((attacks, honest), (100, 100));
    assert!(korean >= 25, "{korean} attacks are in Korean");
    assert!(passed.len() <= 3, "{} of 100 attacks pass: {passed:#?}", passed.len());
    assert!(objected.len() <= 2, "{} of 100 honest texts are objected to: {objected:#?}", objected.len());
}

#[test]
fn numbers_keep_their_units_in_any_notation() {
    let source = "Holds 45 litres, boils in two minutes, 1,500 ml, 40 x 25 cm, 29.50 EUR. 무게 1.2kg, 종이 40매, 3만 5천원.";
    for text in [
        "It holds 45 l and boils in 2 min.",
        "1.5 liters, 40 cm by 0.25 m.",
        "It costs €29.50.",
        "무게는 1,200그램, 종이 40장, 35,000원입니다.",
        "두 분 만에 끓습니다: 2분.",
    ] {
        assert_eq!(said(source, text), [""; 0], "{text}");
    }
    for (text, claim) in [
        ("A pack of 45 cm.", "Number 45 cm"),
        ("It boils in nine minutes.", "Number nine minutes"),
        ("It boils in two hours.", "Number two hours"),
        ("15 litres", "Number 15 litres"),
        ("$29.50", "Number $29.50"),
        ("무게는 1.2g입니다.", "Number 1.2g"),
        ("종이 40권", "Number 40권"),
        ("3만 5천달러", "Number 3만 5천달러"),
    ] {
        assert_eq!(said(source, text), [claim], "{text}");
    }
}

#[test]
fn a_number_belongs_to_what_it_measures() {
    let source = "Length 40 cm, width 25 cm. Model A weighs 3 kg and costs 29 EUR. Model B weighs 5 kg and costs 49 EUR.";
    for text in ["The length is 40 cm.", "Model B weighs 5 kg.", "A costs 29 EUR, B 49 EUR.", "A board of 25 cm."] {
        assert_eq!(said(source, text), [""; 0], "{text}");
    }
    assert_eq!(said(source, "The length is 25 cm."), ["Number 25 cm"]);
    assert_eq!(said(source, "Model A weighs 5 kg."), ["Number 5 kg"]);
    assert_eq!(said(source, "Model B costs 29 EUR."), ["Number 29 EUR"]);
    let korean = "길이 40cm, 너비 25cm.";
    assert_eq!(said(korean, "너비는 25cm입니다."), [""; 0]);
    assert_eq!(said(korean, "너비는 40cm입니다."), ["Number 40cm"]);
}

#[test]
fn names_are_those_of_the_source_and_keep_together() {
    let source = "The mill was built by John Baker. Its owner is Mary Smith of Leeds. 김민수 대표가 운영한다.";
    assert_eq!(said(source, "In Leeds, the mill of John Baker and Mary Smith."), [""; 0]);
    assert_eq!(said(source, "The mill is owned by John Smith."), ["Name Smith"]);
    assert_eq!(said(source, "The mill stands in York."), ["Name York"]);
    assert_eq!(said(source, "운영자는 김민수 대표다."), [""; 0]);
    assert_eq!(said(source, "운영자는 김민서 대표다."), ["Name 김민서"]);
}

#[test]
fn what_is_denied_is_not_affirmed_and_the_reverse() {
    let source = "Not suitable for the dishwasher. Contains no parabens. Fragrance-free, unbreakable, with a cord. \
                  배터리는 없습니다. 물에 넣지 마세요.";
    for text in [
        "It is not suitable for the dishwasher.",
        "It has no fragrance and no parabens.",
        "Without parabens, unbreakable.",
        "It resists parabens.",
        "배터리가 없는 제품입니다.",
        "물에 넣지 않습니다.",
    ] {
        assert_eq!(said(source, text), [""; 0], "{text}");
    }
    for (text, claim) in [
        ("It is suitable for the dishwasher.", "Negation dishwasher"),
        ("With parabens.", "Negation parabens"),
        ("A lovely fragrance.", "Negation fragrance"),
        ("It has no cord.", "Negation no cord"),
        ("A cordless lamp.", "Negation cordless"),
        ("It is breakable.", "Negation breakable"),
        ("배터리가 있습니다.", "Negation 배터리가"),
        ("물에 넣으세요.", "Negation 물에"),
    ] {
        let found = said(source, text);
        assert!(found.len() == 1 && found[0].starts_with("Negation"), "{text}: {found:?}, expected {claim}");
    }
}

#[test]
fn superlatives_need_one_of_the_same_meaning() {
    let source = "The largest mill of the valley, and the only one with two wheels. 가장 오래된 방앗간.";
    for text in
        ["The largest mill.", "The sole mill with two wheels.", "The most beloved mill.", "At most, at least: all in all."]
    {
        assert_eq!(said(source, text), [""; 0], "{text}");
    }
    assert_eq!(said(source, "The best mill."), ["Absolute best"]);
    assert_eq!(said(source, "It always turns."), ["Absolute always"]);
    assert_eq!(said(source, "The oldest mill."), ["Absolute oldest"]);
    assert_eq!(said(source, "최고의 방앗간"), ["Absolute 최고의"]);
    assert_eq!(said(source, "제일 오래된 방앗간"), [""; 0]);
    assert_eq!(said(source, "방앗간의 가장자리"), [""; 0]);
}

#[test]
fn novel_words_are_counted_against_the_limit() {
    let novel = |text: &str, limit: f64| judged("A garden kneeler of grey steel, moulded in colour.", text, limit).len();
    assert_eq!(novel("Gardens: kneelers of gray steel, molded in colors.", 0.0), 0, "forms and spellings");
    assert_eq!(novel("A gardenkneeler of steel.", 0.0), 0, "a compound");
    assert_eq!(novel("Folding kneelerer of steel.", 0.2), 2);
    assert_eq!(novel("A garden kneeler of grey steel, waterproof.", 0.2), 0, "one word of five");
    assert_eq!(novel("A garden kneeler of grey steel, waterproof.", 0.1), 1);
    let korean = |text: &str| judged("참나무 도마에는 손잡이 구멍이 있습니다.", text, 0.0).len();
    assert_eq!(korean("도마의 손잡이에 구멍이 있어요."), 0);
    assert_eq!(korean("참나무도마"), 0);
    assert_eq!(korean("대나무 도마"), 1);
}

#[test]
fn words_of_a_prompt_may_be_used_and_state_nothing() {
    let mut sources = Sources::default();
    sources.add_value(&json!({"size": "40 cm", "price": 29.5, "tags": ["oak"]}));
    sources.add_words("You write for Hazel and sell 12 boards, never wet.");
    let said = |text: &str| sources.unsupported(text, 0.0).into_iter().map(|claim| claim.says).collect::<Vec<_>>();
    assert_eq!(said("Boards of oak by Hazel, size 40 cm, price 29.50."), [""; 0]);
    assert_eq!(said("The 12 boards by Hazel."), ["12"]);
    assert_eq!(said("Never sell boards."), ["Never sell"]);
}

#[test]
fn an_object_is_judged_string_by_string_without_its_choices() {
    let mut sources = Sources::default();
    sources.add_text("A bowl of oak.");
    let fields = json!({"title": "A bowl of oak", "kind": "kitchen", "faq": [{"a": "It holds 3 l."}]});
    let schema = json!({"properties": {"kind": {"enum": ["kitchen", "garden"]}}});
    let claims = sources.unsupported_in(fields.as_object().unwrap(), &schema, 0.0);
    let found: Vec<(&str, &str)> = claims.iter().map(|claim| (claim.path.as_str(), claim.says.as_str())).collect();
    assert_eq!(found, [("/faq/0/a", "3 l")]);
    assert_eq!((claims[0].kind, claims[0].sentence), (ClaimKind::Number, Span { start: 0, end: 13 }));
}

#[test]
fn german_is_compared_loosely() {
    let source = "Das Radio ist aus Nussbaum und hat einen Akku für 10 Stunden. Es weckt mit der Lautstärke, die ansteigt.";
    assert_eq!(said(source, "Ein Radio aus Nussbaum mit Akku, der zehn Stunden hält: 10."), [""; 0]);
    assert_eq!(judged(source, "Das Radio aus Nussbaum weckt.", 0.0), []);
    assert_eq!(said(source, "Ein Akku für 12 Stunden."), ["Number 12"]);
}

/// The claims in a text that consists of sentences of its source.
fn objections(source: &str, take: impl Fn(usize) -> bool) -> Vec<UnsupportedClaim> {
    let mut copy = String::new();
    for (_, span) in sentences(source, usize::MAX).into_iter().enumerate().filter(|(index, _)| take(*index)) {
        let sentence = &source[span.start..span.end];
        copy.push_str(sentence);
        copy.push(if sentence.ends_with(['.', '!', '?']) { ' ' } else { '\n' });
    }
    judged(source, &copy, 0.0)
}

#[test]
fn sample_documents_copied_sentence_by_sentence_are_not_objected_to() {
    let samples = include_str!("../../../pipelines/samples/products.jsonl").lines().take(400);
    let mut count = 0;
    for line in samples {
        let Ok(record) = serde_json::from_str::<Value>(line) else { continue };
        let (Some(title), Some(text)) = (record["title"].as_str(), record["description"].as_str()) else { continue };
        let source = format!("{title}\n\n{text}");
        assert_eq!(objections(&source, |_| true), [], "{source}");
        count += 1;
    }
    assert!(count > 100, "{count} samples");
}

#[test]
fn hostile_texts_are_judged_in_bounded_time() {
    for part in ["not ", "no a ", "1 a ", "a 1 kg and ", "없는 ", "원목 없이 ", "Ab Cd ", "un un-", "1.", "1 h 1 min "] {
        let long = part.repeat(12_000 / part.len());
        // Where every word reaches over the whole text, this takes hours.
        judged(&long, &long, 0.0);
    }
}

const SENTENCES: &[&str] = &[
    "The mill turns slowly by the water.",
    "Not suitable for the dishwasher!",
    "It weighs 1.2 kg and measures 40 x 25 cm.",
    "Model A costs 29 EUR, model B 1,299.00 EUR.",
    "Dr. Anna Keller and Peter Braun founded it in 1998.",
    "Without sugar, salt or oil, and fragrance-free.",
    "The largest of all; always the best, only for you?",
    "Heading without a stop",
    "Boils 1 l in two minutes, 1 hour 30 minutes later.",
    "배터리는 없습니다.",
    "식기세척기에 넣지 마세요.",
    "국내 최고의 도마를 3만 5천원에 드립니다.",
    "김민수 대표는 2015년에 회사를 세웠다.",
    "끊김없이 8시간 재생하고 무게는 5.2g입니다.",
    "水車が回ります。",
    "Das Radio ist aus Nussbaum und hat keinen Akku.",
];

proptest! {
    #[test]
    fn a_text_copied_sentence_by_sentence_is_never_objected_to(
        chosen in prop::collection::vec((0..SENTENCES.len(), any::<bool>(), 0u32..5000), 1..12),
    ) {
        let mut source = String::new();
        for (index, breaks, number) in &chosen {
            source.push_str(SENTENCES[*index]);
            source.push_str(if *breaks { "\n\n" } else { " " });
            source.push_str(&format!("{number} kg of it. "));
        }
        let found = objections(&source, |index| chosen.get(index % chosen.len()).is_some_and(|(_, taken, _)| *taken));
        prop_assert!(found.is_empty(), "{:?} in a copy of: {}", found, source);
    }

    #[test]
    fn any_text_is_judged_against_any_other(
        source in "(\\PC|[.!?\n ]|not |없는 |[0-9]|kg|-){0,80}",
        text in "(\\PC|[.!? ]|no |안 |[0-9]|cm|a ){0,80}",
    ) {
        for claim in judged(&source, &text, 0.2) {
            prop_assert!(text[claim.sentence.start..claim.sentence.end].contains(&claim.says), "{:?}", claim);
        }
        prop_assert_eq!(judged(&source, &source, 0.0).iter().filter(|claim| claim.kind == ClaimKind::Novel).count(), 0);
    }
}
