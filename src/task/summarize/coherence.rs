//! Whether a sentence can be understood without the one before it, by the words that it begins with.

use crate::task::words::is_particles;

/// How a sentence begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Opening {
    /// With what it is about.
    Independent,
    /// With a word that joins it to the sentence before it, such as `but`, `this` or 그래서.
    Joined,
    /// With a pronoun whose antecedent stands in an earlier sentence, also after such a word: `Then he went`, 그녀는.
    Pronoun,
}

/// Most words that are read before the one that counts.
const MOST_LEADING: usize = 3;

/// Words that stand for someone or something named before. Separated by spaces, like the other lists.
const PRONOUNS: &str = "\
    he she it they him her them his hers its their theirs himself herself itself themselves 그는 그가 그를 그의 그에게 그도 그와 그게 그건 이는 \
    이를 이에 이와 이로 이게 이건";

/// Korean pronouns of two syllables. Particles follow them within the word.
const STEMS: &str = "그녀 그들 그것 그곳 그분 이것 이들 이곳 이분 저것 저들";

/// Words that join a sentence to the one before it, or point at what it names.
const JOINING: &str = "\
    but so and or nor yet then therefore thus hence however moreover meanwhile also again besides instead nevertheless \
    otherwise accordingly furthermore consequently this that these those such 그래서 그러나 그런데 그리고 그러자 그러면 그럼 그러므로 그러니까 그래도 그렇지만 \
    그렇게 그때 그런 그 이 이런 이렇게 이처럼 하지만 따라서 또 또한 게다가 즉 한편 반면 결국";

/// Other words that may stand before a pronoun at the beginning: `When he came`, `To her`.
const LEADING: &str = "\
    for when as after before while whilst if until till though although because since once where whenever now at last to in \
    on with from of by there still afterwards finally soon scarcely hardly just no sooner even not";

/// How `sentence` begins, quotation marks aside.
pub(super) fn opening(sentence: &str) -> Opening {
    let mut words = sentence.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let mut opening = Opening::Independent;
    for place in 0..=MOST_LEADING {
        let Some(word) = words.next().map(str::to_lowercase) else { break };
        let joins = has(JOINING, &word);
        if is_pronoun(&word) {
            return Opening::Pronoun;
        }
        if joins && place == 0 {
            opening = Opening::Joined;
        }
        if !joins && !has(LEADING, &word) {
            break;
        }
    }
    opening
}

fn has(list: &str, word: &str) -> bool {
    list.split_whitespace().any(|listed| listed == word)
}

fn is_pronoun(word: &str) -> bool {
    has(PRONOUNS, word) || STEMS.split_whitespace().filter_map(|stem| word.strip_prefix(stem)).any(is_particles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_that_need_the_one_before_are_recognized() {
        for (sentence, expected) in [
            ("The mouse agreed.", Opening::Independent),
            ("Hans and his wife went home.", Opening::Independent),
            ("When the king came, he laughed.", Opening::Independent),
            ("At last the cat slept.", Opening::Independent),
            ("He went home.", Opening::Pronoun),
            ("‘It's late,’ said Hans.", Opening::Pronoun),
            ("Then she went home.", Opening::Pronoun),
            ("And when they had eaten, the mother spoke.", Opening::Pronoun),
            ("To her the king gave a ring.", Opening::Pronoun),
            ("But the maid laughed.", Opening::Joined),
            ("These apples were counted.", Opening::Joined),
            ("그는 집으로 갔다.", Opening::Pronoun),
            ("그녀에게는 딸이 있었다.", Opening::Pronoun),
            ("그러나 그들은 떠났다.", Opening::Pronoun),
            ("이는 새로운 소식이다.", Opening::Pronoun),
            ("이것은 칼이다.", Opening::Pronoun),
            ("그래서 왕이 웃었다.", Opening::Joined),
            ("그 남자는 웃었다.", Opening::Joined),
            ("그림이 아름답다.", Opening::Independent),
            ("이야기는 여기서 끝난다.", Opening::Independent),
            ("왕은 그를 불렀다.", Opening::Independent),
            ("", Opening::Independent),
        ] {
            assert_eq!(opening(sentence), expected, "{sentence}");
        }
    }
}
