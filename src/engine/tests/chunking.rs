//! Texts to sequences, and sequences back to places in the text.

use super::fixture::{Tiny, bert, encode, xlm_roberta};
use crate::text_tokenizer::TextTokenizer;
use crate::{Chunking, Engine};
use tidemill_base::failure::{Failure, FailureClass, Poison};

fn tokenizer(model: &Tiny, max_tokens: usize) -> TextTokenizer {
    model.tokens(max_tokens)
}

/// Every word of the text lies in a chunk, every chunk on character boundaries.
#[track_caller]
fn assert_covered(model: &Tiny, text: &str, tokens: usize, overlap: usize) {
    let tokenizer = tokenizer(model, 64);
    let chunks = tokenizer.chunks(text, Chunking::Split { tokens, overlap }).unwrap();
    let mut covered = 0;
    for chunk in &chunks {
        let span = chunk.span;
        assert!(text.is_char_boundary(span.start) && text.is_char_boundary(span.end), "{span:?} cuts a character of {text:?}");
        assert!(span.start < span.end, "chunk {span:?} of {text:?} covers nothing");
        assert!(
            chunk.ids.len() <= tokens + 2,
            "a chunk of {} tokens where {tokens} and two special ones are the limit",
            chunk.ids.len()
        );
        if span.start > covered {
            let gap = &text[covered..span.start];
            assert!(gap.chars().all(char::is_whitespace), "chunks of {text:?} leave out {gap:?}");
        }
        covered = covered.max(span.end);
    }
    let rest = &text[covered..];
    assert!(rest.chars().all(char::is_whitespace), "chunks of {text:?} leave out {rest:?} at the end");
}

#[test]
fn spans_of_split_texts_cover_every_word_in_any_script() {
    let texts = [
        "the mill grinds corn all day long and then some more of it",
        "한국어로 쓴 문장을 방앗간에서 빻는다 그리고 또 빻는다",
        "the 🙂 mill 🏴\u{200d}☠\u{fe0f} grinds 👩\u{200d}👩\u{200d}👧 corn",
        "cafe\u{301} cre\u{300}me e\u{301}te\u{301} o\u{308}fter",
        "水車小屋で米を挽く。水車小屋で米を挽く。",
        "  white   space \n\n everywhere\t here  ",
        "مطحنة الحبوب تعمل طوال اليوم",
    ];
    for model in [bert(), xlm_roberta()] {
        for text in texts {
            for (tokens, overlap) in [(5, 0), (5, 2), (1, 0), (64, 8), (7, 6)] {
                assert_covered(&model, text, tokens, overlap);
            }
        }
    }
}

#[test]
fn neighbouring_chunks_share_the_overlap() {
    let tokenizer = tokenizer(&bert(), 64);
    let chunks = tokenizer.chunks("a b c d e f g h i j", Chunking::Split { tokens: 4, overlap: 1 }).unwrap();
    let text = "a b c d e f g h i j";
    let covered: Vec<&str> = chunks.iter().map(|chunk| &text[chunk.span.start..chunk.span.end]).collect();
    assert_eq!(covered, ["a b c d", "d e f g", "g h i j"]);
}

#[test]
fn split_never_exceeds_the_model_whatever_is_asked() {
    let tokenizer = tokenizer(&bert(), 10);
    let text = "corn ".repeat(100);
    for chunking in
        [Chunking::Split { tokens: 10_000, overlap: 0 }, Chunking::Split { tokens: 4, overlap: 400 }, Chunking::Truncate]
    {
        let chunks = tokenizer.chunks(&text, chunking).unwrap();
        let most = chunks.iter().map(|chunk| chunk.ids.len()).max().unwrap();
        assert!(most <= 10, "{chunking:?} gives a sequence of {most} tokens to a model that takes 10");
    }
}

#[test]
fn long_text_is_tokenized_piece_by_piece_as_if_in_one() {
    for model in [bert(), xlm_roberta()] {
        let tokenizer = tokenizer(&model, 64);
        let sentence = "the mill grinds corn, 한국 and more! ";
        let (once, often) = (tokenizer.count(sentence).unwrap(), tokenizer.count(&sentence.repeat(3000)).unwrap());
        let expected = once * 3000;
        // A trailing space may be a token of its own, once a text.
        assert!(
            often.abs_diff(expected) <= 3000 * usize::from(model.model_type != "bert"),
            "expected {expected} tokens, found {often}"
        );
    }
}

#[test]
fn truncated_long_text_equals_its_beginning() {
    for model in [bert(), xlm_roberta()] {
        let tokenizer = tokenizer(&model, 64);
        let text = "the mill grinds corn, 한국 and more! ".repeat(100);
        let whole = tokenizer.chunks(&text.repeat(200), Chunking::Truncate).unwrap();
        let beginning = tokenizer.chunks(&text, Chunking::Truncate).unwrap();
        assert_eq!(whole, beginning);
        let unbroken = tokenizer.chunks(&"米".repeat(3_000_000), Chunking::Truncate).unwrap();
        assert_eq!(unbroken.len(), 1);
    }
}

async fn only_failure(engine: &Engine, texts: &[&str]) -> Failure {
    engine.run(vec![encode(texts, Chunking::Truncate)]).await.unwrap().remove(0).unwrap_err()
}

#[tokio::test]
async fn text_without_tokens_is_poison_unless_another_text_has_some() {
    let engine = bert().engine();
    for texts in [&[""][..], &[" \n\t "], &["\u{0001}\u{0002}"], &["", " "], &[]] {
        let failure = only_failure(&engine, texts).await;
        let Failure::Poison(Poison { class, .. }) = failure else { panic!("expected poison for {texts:?}, got {failure}") };
        assert_eq!(class, FailureClass::EmptyText, "class for {texts:?}");
    }
    let answers = engine.run(vec![encode(&["the mill", " "], Chunking::Truncate)]).await.unwrap();
    assert!(answers[0].is_ok(), "one sentence of a document may be empty");
}

#[tokio::test]
async fn count_takes_no_special_tokens_and_cuts_nothing() {
    let engine = bert().engine();
    let texts = ["the mill", "", &"the ".repeat(500)].map(Into::into).to_vec();
    assert_eq!(engine.count_tokens("tiny", texts).await.unwrap(), [2, 0, 500]);
    assert!(engine.count_tokens("other", vec!["x".into()]).await.is_err());
}
