//! Suggestions for unknown names: the most similar known name.

use std::collections::BTreeMap;

/// The candidate most similar to `word` by Jaro-Winkler similarity; none where no candidate is similar enough to be a typing error.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // Below this similarity, unrelated words of similar length begin to match.
    const ALIKE: f64 = 0.75;
    let word = word.to_lowercase();
    let scored = candidates.into_iter().map(|candidate| (strsim::jaro_winkler(&word, &candidate.to_lowercase()), candidate));
    scored.filter(|(score, _)| *score >= ALIKE).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, candidate)| candidate)
}

/// The end of a message about an unknown word: the most similar candidate, or all candidates.
pub fn suggestion<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str> + Clone) -> String {
    if let Some(candidate) = nearest(word, candidates.clone()) {
        return format!("did you mean `{candidate}`?");
    }
    let all: Vec<_> = candidates.into_iter().map(|candidate| format!("`{candidate}`")).collect();
    if all.is_empty() { "there are none".into() } else { format!("known are {}", all.join(", ")) }
}

/// The pipeline of that name, or the only pipeline if no name is given. `which` follows the name of an unknown pipeline in the
/// message, as in ` that makes leads`.
///
/// # Errors
/// A message for the user.
pub fn pipeline<'a, T>(known: &'a BTreeMap<String, T>, name: Option<&str>, which: &str) -> Result<(&'a str, &'a T), String> {
    let found = match name {
        Some(name) => known.get_key_value(name),
        None if known.len() == 1 => known.first_key_value(),
        None => None,
    };
    found.map(|(name, entry)| (name.as_str(), entry)).ok_or_else(|| {
        let names = known.keys().map(String::as_str);
        match name {
            Some(name) => format!("there is no pipeline `{name}`{which}; {}", suggestion(name, names)),
            None => format!("`pipeline` is missing; {}", suggestion("", names)),
        }
    })
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

    #[test]
    fn a_pipeline_is_named_or_the_only_one() {
        let known = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), ())).collect::<BTreeMap<_, _>>();
        let one = known(&["notes"]);
        assert_eq!(pipeline(&one, None, ""), Ok(("notes", &())));
        assert_eq!(pipeline(&one, Some("notes"), ""), Ok(("notes", &())));
        let refused = |names: &[&str], name, which| pipeline(&known(names), name, which).map(drop).unwrap_err();
        assert_eq!(refused(&["notes"], Some("note"), ""), "there is no pipeline `note`; did you mean `notes`?");
        let of_leads = " that makes leads";
        assert_eq!(refused(&["sales"], Some("x"), of_leads), "there is no pipeline `x` that makes leads; known are `sales`");
        assert_eq!(refused(&["notes", "sales"], None, ""), "`pipeline` is missing; known are `notes`, `sales`");
        assert_eq!(refused(&[], None, ""), "`pipeline` is missing; there are none");
    }
}
