//! Splits a query into words in the same way as the index splits documents (`migrations/0016_word_statistics.sql`).
//!
//! | query | searched for |
//! |---|---|
//! | a word with spaces around it | its stem |
//! | a run of Hangul, Chinese characters or Kana | all its pairs of neighbouring characters, without a Korean particle at its end |
//! | one such character | the character at the beginning or end of a run |
//! | `EL-4105`, `orders@lamps.example` | the parts as a phrase |
//! | `"…"`, `-…` before a letter, `or` | as in a web search |

use super::normalize::{is_joint, normalize};

/// Korean particles at the end of a noun, the longest first. A query and a document often have different ones after the same noun.
const PARTICLES: [&str; 46] = [
    "으로부터",
    "에서부터",
    "이라는",
    "에서는",
    "에게서",
    "으로는",
    "으로도",
    "이라고",
    "까지는",
    "부터는",
    "에게는",
    "에서",
    "에게",
    "으로",
    "까지",
    "부터",
    "처럼",
    "보다",
    "이나",
    "라는",
    "라고",
    "에는",
    "에도",
    "이란",
    "마다",
    "조차",
    "밖에",
    "하고",
    "들은",
    "들이",
    "들을",
    "은",
    "는",
    "이",
    "가",
    "을",
    "를",
    "의",
    "에",
    "와",
    "과",
    "로",
    "도",
    "만",
    "나",
    "란",
];

/// The words of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct QueryTerms {
    /// What a document must hold, in the syntax of `websearch_to_tsquery`.
    pub all: String,
    /// The words that count for the ranking. Any of them is enough if few documents hold everything.
    pub any: String,
    /// Whether the query has operators, so that it must be met exactly.
    pub exact: bool,
    /// Runs of characters of scripts without spaces, without their particles, for highlights.
    pub runs: Vec<String>,
    /// The other words, in lower case.
    pub spaced: Vec<String>,
}

impl QueryTerms {
    pub(super) fn new(query: &str) -> Self {
        let query = normalize(query);
        let exact = has_operators(&query);
        let (mut all, mut any, mut runs, mut spaced) = (String::new(), String::new(), Vec::new(), Vec::new());
        let mut quoted = false;
        let pieces = pieces(&query);
        for (index, piece) in pieces.iter().enumerate() {
            let run = match *piece {
                Piece::Run(run) => run,
                Piece::Other(text) => {
                    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
                    spaced.extend(words.map(str::to_lowercase));
                    all.push_str(&split_parts(text, quoted, index > 0, index + 1 < pieces.len()));
                    any.push_str(&text.replace(is_joint, " "));
                    quoted ^= text.matches('"').count() % 2 == 1;
                    continue;
                }
            };
            let bare = if quoted { run } else { without_particle(run) };
            runs.push(bare.to_owned());
            any.push_str(&format!(" {} ", pairs(bare)));
            // A noun of one character may be all that query and document share, as in 물은 and 물을.
            any.extend(one_character(run).into_iter().flat_map(|noun| [noun, " "]));
            let next_is_quote = matches!(pieces.get(index + 1), Some(Piece::Other(text)) if text.starts_with('"'));
            // A minus before a run excludes the whole run.
            let part = match (quoted, ends_with_minus(&all)) {
                (true, _) => within_phrase(run, all.ends_with('"'), next_is_quote),
                (false, true) => format!("\"{}\" ", pairs(run)),
                (false, false) => format!(" {} ", pairs(bare)),
            };
            all.push_str(&part);
        }
        Self { all, any, exact, runs, spaced }
    }
}

enum Piece<'a> {
    Run(&'a str),
    Other(&'a str),
}

/// Splits the text into runs of characters of scripts without spaces, and the text between the runs.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let kind = is_unspaced(first);
        let end = rest.find(|c| is_unspaced(c) != kind).unwrap_or(rest.len());
        found.push(if kind { Piece::Run(&rest[..end]) } else { Piece::Other(&rest[..end]) });
        rest = &rest[end..];
    }
    found
}

/// Whether the character is of a script without spaces between words. The migration splits the same characters.
pub(super) fn is_unspaced(c: char) -> bool {
    matches!(c,
        '\u{1100}'..='\u{11FF}' | '\u{3005}' | '\u{3040}'..='\u{31FF}' | '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{AC00}'..='\u{D7A3}' | '\u{F900}'..='\u{FAFF}'
        | '\u{FF66}'..='\u{FFDC}' | '\u{20000}'..='\u{3FFFF}')
}

/// Splits part numbers, addresses and the like into their parts, as a phrase if they are not inside one. `follows` and `goes_on`
/// say whether a run is directly before and after the text. A minus inside a word, or on its own, excludes nothing.
fn split_parts(text: &str, quoted: bool, mut follows: bool, goes_on: bool) -> String {
    let mut split = String::new();
    let (mut inside, mut rest) = (quoted, text);
    while let Some(first) = rest.chars().next() {
        if first == '"' || first.is_whitespace() {
            split.push(first);
            inside ^= first == '"';
            follows = false;
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let end = rest.find(|c: char| c == '"' || c.is_whitespace()).unwrap_or(rest.len());
        let (chunk, after) = rest.split_at(end);
        let excludes_next = chunk == "-" && (after.starts_with('"') || (after.is_empty() && goes_on));
        let is_excluded = !inside && !follows && (excludes(chunk) || excludes_next);
        let parts: Vec<&str> = chunk.split(is_joint).filter(|part| !part.is_empty()).collect();
        split.push_str(match (is_excluded, follows) {
            (true, _) => "-",
            (false, true) => " ",
            (false, false) => "",
        });
        let joined = parts.join(" ");
        split.push_str(&if parts.len() > 1 && !inside { format!("\"{joined}\"") } else { joined });
        (rest, follows) = (after, true);
    }
    split
}

/// The pairs of neighbouring characters in a run; a run of one character is itself.
fn pairs(run: &str) -> String {
    let characters: Vec<char> = run.chars().collect();
    match characters.len() {
        0 | 1 => run.to_owned(),
        _ => characters.windows(2).map(String::from_iter).collect::<Vec<_>>().join(" "),
    }
}

/// The words of a run inside a phrase. Next to other words of the phrase, the index has the single characters at the run's ends.
fn within_phrase(run: &str, begins: bool, ends: bool) -> String {
    let mut words = Vec::new();
    words.extend(run.chars().next().filter(|_| !begins).map(String::from));
    if run.chars().count() > 1 || (begins && ends) {
        words.push(pairs(run));
    }
    words.extend(run.chars().next_back().filter(|_| !ends).map(String::from));
    format!(" {} ", words.join(" "))
}

fn without_particle(run: &str) -> &str {
    let is_hangul = |c: char| ('\u{AC00}'..='\u{D7A3}').contains(&c);
    if !run.chars().all(is_hangul) {
        return run;
    }
    let stem = PARTICLES.iter().find_map(|particle| run.strip_suffix(particle).filter(|stem| stem.chars().count() >= 2));
    stem.unwrap_or(run)
}

/// The first of two characters, if the second is a particle.
fn one_character(run: &str) -> Option<&str> {
    let noun = PARTICLES.iter().find_map(|particle| run.strip_suffix(particle))?;
    (noun.chars().count() == 1).then_some(noun)
}

fn ends_with_minus(text: &str) -> bool {
    text.ends_with('-') && text[..text.len() - 1].chars().next_back().is_none_or(char::is_whitespace)
}

fn has_operators(words: &str) -> bool {
    words.split_whitespace().any(excludes) || words.matches('"').count() > 1
}

/// Whether the word begins with a minus that excludes it or a phrase. Before digits a minus is the sign of a number, as in `-40
/// °C`.
fn excludes(word: &str) -> bool {
    word.strip_prefix('-').is_some_and(|rest| rest.starts_with(|c: char| c.is_alphabetic() || c == '"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_becomes_pairs_and_loses_its_particle() {
        let terms = QueryTerms::new("토마토는 water");
        assert_eq!(terms.all.split_whitespace().collect::<Vec<_>>(), ["토마", "마토", "water"]);
        assert_eq!(terms.any.split_whitespace().collect::<Vec<_>>(), ["토마", "마토", "water"], "a particle finds nothing");
        assert_eq!((terms.runs, terms.spaced), (vec!["토마토".to_owned()], vec!["water".to_owned()]));
        assert!(!terms.exact);
        assert_eq!(QueryTerms::new("물").all.trim(), "물");
        let short = QueryTerms::new("물은");
        assert_eq!(
            (short.all.trim(), short.any.trim()),
            ("물은", "물은 물"),
            "one character is not enough to be asked for alone"
        );
    }

    #[test]
    fn decomposed_and_half_width_forms_are_one_with_the_usual() {
        assert_eq!(QueryTerms::new("\u{1110}\u{1169}\u{1106}\u{1161}\u{1110}\u{1169}").runs, ["토마토"]);
        assert_eq!(QueryTerms::new("ﾃｽﾄ").all.split_whitespace().collect::<Vec<_>>(), ["テス", "スト"]);
    }

    #[test]
    fn a_minus_before_digits_is_a_sign_and_rules_nothing_out() {
        let terms = QueryTerms::new("freezer -40 °C");
        assert!(!terms.exact && !terms.all.contains('-'), "{terms:?}");
        let terms = QueryTerms::new("freezer -brass");
        assert!(terms.exact && terms.all.contains("-brass"), "{terms:?}");
    }

    #[test]
    fn phrases_and_what_is_ruled_out_stay_whole() {
        let words = |query| QueryTerms::new(query).all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words("\"햇빛을 받은\""), "\" 햇빛 빛을 을 받 받은 \"", "as the index has them");
        assert_eq!(words("\"물 한 잔\""), "\" 물 한 한 잔 \"");
        assert_eq!(words("물 -주전자"), "물 -\"주전 전자\"");
        assert!(QueryTerms::new("물 -주전자").exact);
    }

    #[test]
    fn the_parts_of_what_is_joined_are_words() {
        let all = |query| QueryTerms::new(query).all.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(all("lamp EL-4105"), "lamp \"EL 4105\"");
        assert_eq!(QueryTerms::new("lamp EL-4105").any, "lamp EL 4105");
        assert_eq!(all("orders@lamps.example"), "\"orders lamps example\"");
        assert_eq!(all("\"brass EL-4105\" x"), "\"brass EL 4105\" x", "a phrase stays one");
        assert_eq!(all("lamp -EL-4105"), "lamp -\"EL 4105\"", "what is ruled out is ruled out as a whole");
        assert_eq!(all("lamp - 4105 --brass 4105- -x"), "lamp 4105 brass 4105 -x", "a minus on its own rules nothing out");
        assert_eq!(all("lamp -\"EL 4105\""), "lamp -\"EL 4105\"");
        assert_eq!(all("토마토-S24"), "토마 마토 S24", "a minus inside a word rules nothing out");
        assert_eq!(all("Kaffee\u{AD}maschine Mu\u{308}ller"), "Kaffeemaschine Müller");
    }

    #[test]
    fn operators_are_told_from_plain_words() {
        assert!(has_operators("rust -oxide") && has_operators("\"rust belt\""));
        assert!(!has_operators("state-of-the-art 5\" pipe") && !has_operators("a - b"));
    }
}
