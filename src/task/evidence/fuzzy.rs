//! Approximate search with Sellers' algorithm, which finds the part of a text with the smallest edit distance to a pattern.

use std::ops::Range;

/// Shortest pattern. In shorter words, one changed letter often makes another word: "white" and "while", "black" and "block".
const SHORTEST: usize = 6;

/// One letter may differ per this many letters of the pattern.
const LETTERS_PER_EDIT: usize = 5;

/// The part of `letters` closest to `wanted`, if at most a fifth of its letters differ and no digit differs, because another digit
/// makes another number. Of equally close parts, the first. Each comparison of two letters uses one of `steps`; with too few steps,
/// only the start of the text is searched.
pub(super) fn find(letters: &[(usize, char)], wanted: &str, steps: &mut usize) -> Option<Range<usize>> {
    let wanted: Vec<char> = wanted.chars().collect();
    let most = wanted.len() / LETTERS_PER_EDIT;
    if wanted.len() < SHORTEST {
        return None;
    }
    let searched = letters.len().min(*steps / wanted.len());
    *steps -= searched * wanted.len();
    let forbidden = most + 1;
    let price = |letter: char| if letter.is_ascii_digit() { forbidden } else { 1 };
    // For each prefix of the pattern: the smallest distance to a part of the text that ends here, and where that part starts.
    let mut column: Vec<(usize, usize)> = Vec::with_capacity(wanted.len() + 1);
    column.push((0, 0));
    for letter in &wanted {
        let (distance, _) = column[column.len() - 1];
        column.push((distance + price(*letter), 0));
    }
    let mut best: Option<(usize, Range<usize>)> = None;
    for (at, (_, letter)) in letters[..searched].iter().enumerate() {
        let mut diagonal = column[0];
        column[0] = (0, at + 1);
        for (row, expected) in wanted.iter().enumerate() {
            let left = column[row + 1];
            let change = if expected == letter { 0 } else { price(*expected).max(price(*letter)) };
            let taken = (diagonal.0 + change, diagonal.1);
            let skipped = (column[row].0 + price(*expected), column[row].1);
            let added = (left.0 + price(*letter), left.1);
            diagonal = left;
            let mut least = taken;
            for other in [skipped, added] {
                if other.0 < least.0 {
                    least = other;
                }
            }
            column[row + 1] = least;
        }
        let (distance, start) = column[wanted.len()];
        // At equal distance, a part that includes a differing last letter is preferred to one that leaves it out.
        let longer = |place: &Range<usize>| start == place.start && at == place.end && letter.is_alphanumeric();
        if distance <= most && best.as_ref().is_none_or(|(least, place)| distance < *least || distance == *least && longer(place))
        {
            best = Some((distance, start..at + 1));
        }
    }
    best.map(|(_, place)| place)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found<'a>(text: &'a str, wanted: &str) -> Option<&'a str> {
        let letters: Vec<(usize, char)> = text.char_indices().collect();
        let place = find(&letters, wanted, &mut 1_000_000)?;
        let end = letters.get(place.end).map_or(text.len(), |(at, _)| *at);
        Some(&text[letters[place.start].0..end])
    }

    #[test]
    fn a_few_letters_may_differ() {
        assert_eq!(found("a stainles steel bowl", "stainless steel"), Some("stainles steel"));
        assert_eq!(found("the colour is teal", "color is teal"), Some("colour is teal"));
        assert_eq!(found("물레방아 나무로 만든 의자", "물레방아 나무로 만둔"), Some("물레방아 나무로 만든"));
    }

    #[test]
    fn the_nearest_part_counts_and_of_equals_the_first() {
        assert_eq!(found("sheffild, sheffeld, sheffield", "sheffields"), Some("sheffield"));
        assert_eq!(found("walnot and walmut", "walnut"), Some("walnot"));
    }

    #[test]
    fn too_much_of_a_difference_is_none() {
        assert_eq!(found("a wooden bowl", "stainless steel"), None);
        assert_eq!(found("while we wait", "white"), None, "too short for a fuzzy match");
        assert_eq!(found("", "stainless steel"), None);
    }

    #[test]
    fn another_digit_is_another_number() {
        assert_eq!(found("weighs 300 grams", "weighs 500 grams"), None);
        assert_eq!(found("weighs 5000 grams", "weighs 500 grams"), None);
        assert_eq!(found("weights 500 gram", "weighs 500 grams"), Some("weights 500 gram"));
    }

    #[test]
    fn no_more_steps_are_taken_than_allowed() {
        let letters: Vec<(usize, char)> = "a stainles steel bowl".char_indices().collect();
        let mut steps = 100;
        assert_eq!(find(&letters, "stainless steel", &mut steps), None, "only six letters of the text are searched");
        assert_eq!(steps, 10);
    }
}
