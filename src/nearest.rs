//! "Did you mean": the known word closest to one that is not known.

/// The candidate closest to `word`, where one is close enough to be a likely slip of the fingers.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this, unrelated words of similar length start to match.
    const ALIKE: f64 = 0.75;
    let word = word.to_lowercase();
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The end of a sentence about an unknown word: the nearest candidate, or all of them.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = nearest(word, candidates.clone()) {
        return format!("did you mean `{candidate}`?");
    }
    let all: Vec<_> = candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    if all.is_empty() { "there are none".into() } else { format!("known are {}", all.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_fingers_finds_the_word_meant() {
        let known = ["listen", "token", "token_file"];
        assert_eq!(nearest("lisen", known), Some("listen"));
        assert_eq!(nearest("TOKEN", known), Some("token"));
    }

    #[test]
    fn an_unrelated_word_lists_what_there_is() {
        assert_eq!(suggestion("zzz", ["listen", "token"]), "known are `listen`, `token`");
        assert_eq!(suggestion("zzz", []), "there are none");
    }
}
