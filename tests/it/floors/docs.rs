//! Doc comments, read off the source: what is public has one, and none only repeats a name.
//!
//! The compiler's own `missing_docs` also wants one for each field and variant, whose names often say enough.

/// The fewest words of a doc comment.
const WORDS: usize = 4;

/// Derives that make help texts of doc comments. The commands there have their texts, the types that hold the flags need none.
const HELP: [&str; 4] = ["Parser", "Args", "Subcommand", "ValueEnum"];

/// Derives that make API descriptions of doc comments.
const DESCRIPTIONS: [&str; 2] = ["ToSchema", "IntoParams"];

/// What is wrong with the doc comments of a file, a sentence each.
pub fn faults(path: &str, text: &str) -> Vec<String> {
    if path.ends_with("tests.rs") || path.split('/').any(|part| part == "tests") {
        return Vec::new();
    }
    let mut found = Vec::new();
    if !text.starts_with("//!") && !text.starts_with("#![doc") {
        found.push(format!("src/{path} does not say what it holds: its first line is not a `//!` comment"));
    }
    let mut comment = Comment::default();
    // How far the item is indented whose doc comments people read elsewhere, until it closes: there, few words may be enough.
    let mut described: Option<&str> = None;
    let mut is_help = false;
    let mut attribute = 0;
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.trim_start();
        let indent = &line[..line.len() - code.len()];
        if code.starts_with("mod tests {") {
            break;
        }
        if let Some(words) = code.strip_prefix("///") {
            comment.add(number, words);
        } else if attribute > 0 || code.starts_with("#[") {
            attribute += open(code);
            let derives = |names: &[&str]| code.contains("derive(") && names.iter().any(|name| code.contains(name));
            if derives(&HELP) || derives(&DESCRIPTIONS) {
                described = Some(indent);
                is_help = derives(&HELP);
            }
        } else if !code.is_empty() && !code.starts_with("//") {
            if comment.is_short() && described.is_none() {
                found.push(format!(
                    "src/{path}:{} says no more than `{}`: leave it out where the name says that, or write a sentence",
                    comment.line, comment.text
                ));
            }
            let needs_none = is_help && described == Some(indent);
            if let Some(item) = public_item(code).filter(|_| comment.text.is_empty() && !needs_none) {
                found.push(format!("src/{path}:{number} has no doc comment, and `{item}` is public"));
            }
            comment = Comment::default();
            if described.is_some_and(|outer| indent == outer && (code.starts_with('}') || code.ends_with(';'))) {
                described = None;
            }
        }
    }
    found
}

/// The doc comment above the next line of code.
#[derive(Default)]
struct Comment {
    line: usize,
    text: String,
}

impl Comment {
    fn add(&mut self, line: usize, words: &str) {
        if self.text.is_empty() {
            self.line = line;
        } else {
            self.text.push(' ');
        }
        self.text.push_str(words.trim());
    }

    /// An example or an address counts as a sentence.
    fn is_short(&self) -> bool {
        if self.text.contains('`') || self.text.contains("://") {
            return false;
        }
        let words = self.text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
        !self.text.is_empty() && words < WORDS
    }
}

/// Brackets that the line opens, less those that it closes.
fn open(code: &str) -> i32 {
    code.chars().map(|c| i32::from(c == '[') - i32::from(c == ']')).sum()
}

/// The head of the item that the line begins, where it is public and no field, import or module in a file of its own.
fn public_item(code: &str) -> Option<&str> {
    const KINDS: [&str; 8] = ["fn", "struct", "enum", "trait", "type", "static", "union", "const"];
    let rest = code.strip_prefix("pub ")?;
    let mut words = rest.split_whitespace().skip_while(|word| ["async", "unsafe", "extern"].contains(word));
    let kind = words.next()?;
    // A macro hands its comment on.
    (KINDS.contains(&kind) && !rest.contains('$'))
        .then(|| code.split(['(', '{', '=', '<', ';']).next().unwrap_or(code).trim_end())
}
