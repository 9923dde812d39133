//! Stems of words, so that a word is recognized in another form.
//!
//! | script | stem |
//! |---|---|
//! | Latin | American spelling, then the English stemmer of Snowball (Porter 2) |
//! | Hangul | the word without particles and endings. A word has several stems, as `방수가` may end in a particle or not |
//! | others | the word itself |

use std::borrow::Cow;
use std::sync::LazyLock;

use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;

use crate::task::words::{is_hangul, is_particles};

/// English spellings: the British ending and the American one.
const SPELLINGS: &[(&str, &str)] = &[
    ("isation", "ization"),
    ("ising", "izing"),
    ("ised", "ized"),
    ("ises", "izes"),
    ("ise", "ize"),
    ("ysed", "yzed"),
    ("yse", "yze"),
    ("ours", "ors"),
    ("oured", "ored"),
    ("our", "or"),
    ("tres", "ters"),
    ("tre", "ter"),
    ("bres", "bers"),
    ("bre", "ber"),
    ("ence", "ense"),
    ("ogue", "og"),
    ("lling", "ling"),
    ("lled", "led"),
    ("ller", "ler"),
];

/// Words that British and American English spell apart from any rule, and plurals that no rule makes.
const WORDS: &[(&str, &str)] = &[
    ("grey", "gray"),
    ("aluminium", "aluminum"),
    ("tyre", "tire"),
    ("mould", "mold"),
    ("moulded", "molded"),
    ("jewellery", "jewelry"),
    ("plough", "plow"),
    ("programme", "program"),
    ("feet", "foot"),
    ("teeth", "tooth"),
    ("men", "man"),
    ("women", "woman"),
    ("children", "child"),
    ("mice", "mouse"),
    ("geese", "goose"),
    ("knives", "knife"),
    ("leaves", "leaf"),
    ("shelves", "shelf"),
    ("lives", "life"),
    ("loaves", "loaf"),
    ("halves", "half"),
    ("wolves", "wolf"),
    ("kept", "keep"),
    ("held", "hold"),
    ("built", "build"),
    ("sold", "sell"),
    ("wove", "weave"),
    ("woven", "weave"),
    ("sewn", "sew"),
    ("worn", "wear"),
    ("bought", "buy"),
    ("brought", "bring"),
    ("found", "find"),
    ("went", "go"),
    ("gone", "go"),
    ("came", "come"),
    ("took", "take"),
    ("taken", "take"),
    ("gave", "give"),
    ("told", "tell"),
    ("said", "say"),
    ("ran", "run"),
    ("left", "leave"),
    ("lost", "lose"),
    ("met", "meet"),
    ("fell", "fall"),
    ("rose", "rise"),
    ("risen", "rise"),
    ("grew", "grow"),
    ("grown", "grow"),
    ("drove", "drive"),
    ("wrote", "write"),
    ("written", "write"),
    ("broke", "break"),
    ("broken", "break"),
    ("frozen", "freeze"),
    ("shown", "show"),
    ("seen", "see"),
    ("sent", "send"),
    ("spent", "spend"),
    ("paid", "pay"),
    ("laid", "lay"),
    ("felt", "feel"),
    ("led", "lead"),
    ("won", "win"),
    ("rode", "ride"),
    ("chose", "choose"),
    ("chosen", "choose"),
    ("spoke", "speak"),
    ("spoken", "speak"),
    ("knew", "know"),
    ("known", "know"),
    ("threw", "throw"),
    ("thrown", "throw"),
    ("drawn", "draw"),
    ("drew", "draw"),
    ("bound", "bind"),
    ("ground", "grind"),
    ("cheaper", "cheap"),
    ("heavier", "heavy"),
    ("lighter", "light"),
    ("daily", "day"),
    ("weekly", "week"),
    ("monthly", "month"),
    ("yearly", "year"),
    ("annual", "year"),
    ("annually", "year"),
];

/// Endings of Korean verbs and of nouns with 하다 and 되다, as decomposed letters would show them. The longest that fits is cut.
const ENDINGS: &str = "습니다 습니까 ᆸ니다 ᆸ니까 입니다 합니다 됩니다 하였습니다 했습니다 되었습니다 됐습니다 하세요 해요 돼요 했다 됐다 한다 된다 하며 하고 하여 해서 하는 되는 되어 된 한 할 될 \
    하게 하지 하면 되면 시키는 시킵니다 이며 이고 인 ᆫ다 는다 었다 았다 었습니다 았습니다 어요 아요 여요 으며 으면 으니 은 는 을 ᆫ ᆯ 던 고 며 면 니 서 어 아 여 게 지 다 요 자 도록 려고 으려고 기 음 \
    ᆷ 네 죠 세요 으세요 시면 으시면 어도 아도 어야 아야 이 히 들 들이 들은 들을 들의 스러운 적인 적 용 형 제 산 식";

/// Fewest syllables of a Korean stem by which a word is known. Shorter ones belong to too many words.
const LEAST_SYLLABLES: usize = 2;

static ENGLISH: LazyLock<Stemmer> = LazyLock::new(|| Stemmer::create(Algorithm::English));

/// The endings, decomposed, the longest first.
static DECOMPOSED: LazyLock<Vec<String>> = LazyLock::new(|| {
    let mut endings: Vec<String> = ENDINGS.split_whitespace().map(|ending| ending.nfd().collect()).collect();
    endings.sort_by_key(|ending| std::cmp::Reverse(ending.len()));
    endings
});

/// Whether the word is written in Hangul.
pub(super) fn is_korean(word: &str) -> bool {
    word.chars().next().is_some_and(is_hangul)
}

/// The stem of a folded word that is not Korean.
pub(super) fn stem(word: &str) -> String {
    let word = word.strip_suffix("'s").unwrap_or(word);
    let word = word.strip_suffix("able").or_else(|| word.strip_suffix("ible")).filter(|rest| rest.len() >= 4).unwrap_or(word);
    let singular = word.strip_suffix('s').unwrap_or(word);
    let word = match WORDS.iter().find(|(known, _)| *known == word || *known == singular) {
        Some((_, common)) => Cow::Borrowed(*common),
        None => american(word),
    };
    if !is_stuttered(&word) && word.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '\'') {
        return ENGLISH.stem(&word).into_owned();
    }
    word.into_owned()
}

/// Whether the word ends as if its ending were repeated, which small models do: `kneelerer` is no form of `kneeler`.
pub(super) fn is_stuttered(word: &str) -> bool {
    ["erer", "lyly", "eses"].iter().any(|end| word.ends_with(end))
}

/// The word in American spelling. What the rules make of words such as `four` is no word, but the same for all.
fn american(word: &str) -> Cow<'_, str> {
    let spelled = SPELLINGS.iter().find_map(|(british, american)| {
        let rest = word.strip_suffix(british).filter(|rest| rest.len() >= 2)?;
        Some(format!("{rest}{american}"))
    });
    spelled.map_or(Cow::Borrowed(word), Cow::Owned)
}

/// Vowels of verbs before an ending, contracted with it and not: 떨어져 is 떨어지 and 어.
const CONTRACTIONS: &[(char, char)] = &[('ᅧ', 'ᅵ'), ('ᅯ', 'ᅮ'), ('ᅪ', 'ᅩ')];

/// Whether a word is known by this Korean stem.
pub(super) fn is_compared(stem: &str) -> bool {
    stem.chars().count() >= LEAST_SYLLABLES
}

/// The stems of a Korean word, the word itself first.
pub(super) fn korean_stems(word: &str) -> Vec<String> {
    let mut stems = vec![word.to_owned()];
    for (at, _) in word.char_indices().skip(1) {
        if is_particles(&word[at..]) {
            stems.push(word[..at].to_owned());
        }
    }
    for base in stems.clone() {
        let letters: String = base.nfd().collect();
        for ending in DECOMPOSED.iter().filter_map(|ending| letters.strip_suffix(ending.as_str())) {
            add(&mut stems, ending);
        }
    }
    for base in stems.clone() {
        let letters: String = base.nfd().collect();
        let vowel = letters.chars().next_back();
        if let Some((contracted, plain)) = CONTRACTIONS.iter().find(|(contracted, _)| vowel == Some(*contracted)) {
            add(&mut stems, &format!("{}{plain}", letters.trim_end_matches(*contracted)));
        }
    }
    stems
}

fn add(stems: &mut Vec<String>, letters: &str) {
    let stem: String = letters.nfc().collect();
    let is_whole = stem.chars().next_back().is_some_and(|last| matches!(last, '가'..='힣'));
    if is_whole && !stems.contains(&stem) {
        stems.push(stem);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_and_spellings_of_a_word_have_one_stem() {
        for (one, other) in [
            ("colour", "colors"),
            ("litre", "liters"),
            ("minutes", "minute"),
            ("organised", "organizing"),
            ("grey", "gray"),
            ("knives", "knife"),
            ("travelled", "traveled"),
            ("fibre", "fiber"),
            ("durability", "durable"),
            ("boils", "boiling"),
        ] {
            assert_eq!(stem(one), stem(other), "{one}, {other}");
        }
        for (one, other) in [("kneeler", "kneelerer"), ("oak", "oat"), ("steel", "steep")] {
            assert_ne!(stem(one), stem(other));
        }
    }

    #[test]
    fn korean_words_meet_in_one_of_their_stems() {
        let meet = |one: &str, other: &str| korean_stems(one).iter().any(|stem| korean_stems(other).contains(stem));
        for (one, other) in [
            ("방수가", "방수는"),
            ("사용합니다", "사용하는"),
            ("돌아갑니다", "돌아가는"),
            ("돌아간다", "돌아가요"),
            ("드리퍼에는", "드리퍼"),
            ("저장되어", "저장됩니다"),
        ] {
            assert!(meet(one, other), "{one}, {other}");
        }
        for (one, other) in [("방수가", "방염이"), ("원목", "원두"), ("김민수", "김민서")] {
            assert!(!meet(one, other), "{one}, {other}");
        }
    }
}
