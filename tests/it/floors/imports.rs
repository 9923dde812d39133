//! What a source file names: its words, and the absolute paths that they form.

/// A word, `::` or another single character of a file, and its line.
pub type Token<'a> = (usize, &'a str);

/// A path that a file names, from the root of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Import {
    /// The line of its first word.
    pub line: usize,
    /// The package it leads into: empty for the root's.
    pub package: String,
    /// The modules and items it names, from the package's root.
    pub path: Vec<String>,
}

/// The package of the file at `path` below `src` and its module path there. Files of the root package have the empty package.
pub fn module_of<'a>(path: &'a str, packages: &[&str]) -> (&'a str, Vec<&'a str>) {
    let (package, within) = match path.split_once('/') {
        Some((package, within)) if packages.contains(&package) => (package, within),
        _ => ("", path),
    };
    let module = within.trim_end_matches(".rs").split('/').filter(|part| !["lib", "main", "mod"].contains(part)).collect();
    (package, module)
}

/// Every path of ours that a file names: after `crate`, `self` or `super`, and after the name of a package.
pub fn imports(package: &str, module: &[&str], tokens: &[Token<'_>]) -> Vec<Import> {
    // One entry an open brace: whether it opens a module, which takes one more `super` to leave.
    let mut braces: Vec<bool> = Vec::new();
    let mut found = Vec::new();
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    for at in 0..tokens.len() {
        // Only the head of a path counts: `super` inside one was counted with it.
        let is_head = word(at + 1) == "::" && (at == 0 || word(at - 1) != "::");
        let (package, base, start) = match word(at) {
            "{" => {
                braces.push(at >= 2 && word(at - 2) == "mod");
                continue;
            }
            "}" => {
                braces.pop();
                continue;
            }
            "crate" if is_head => (package, Vec::new(), at + 2),
            "self" if is_head => (package, within(module, &braces, 0), at + 2),
            "super" if is_head => {
                let supers = (0..).take_while(|n| word(at + 2 * n) == "super" && word(at + 2 * n + 1) == "::").count();
                (package, within(module, &braces, supers), at + 2 * supers)
            }
            "tidemill" if is_head => ("", Vec::new(), at + 2),
            name if is_head => match name.strip_prefix("tidemill_") {
                Some(package) => (package, Vec::new(), at + 2),
                None => continue,
            },
            _ => continue,
        };
        let (paths, _) = expand(tokens, start, &base);
        found.extend(paths.into_iter().map(|(line, path)| Import { line, package: package.to_owned(), path }));
    }
    found
}

/// The module that `supers` steps up lead to from inside the open braces.
fn within(module: &[&str], braces: &[bool], supers: usize) -> Vec<String> {
    let inline = braces.iter().filter(|is_module| **is_module).count();
    // Modules in braces have no file: what is named in them from there is in none.
    let path = module.iter().map(|part| (*part).to_owned()).chain((0..inline).map(|_| String::from("{}")));
    path.take((module.len() + inline).saturating_sub(supers)).collect()
}

/// The paths that begin at `start`, which continue `base`: one, or those of a group in braces. Also where they end.
pub fn expand(tokens: &[Token<'_>], start: usize, base: &[String]) -> (Vec<(usize, Vec<String>)>, usize) {
    let word = |at: usize| tokens.get(at).map_or("", |(_, token)| *token);
    if word(start) == "{" {
        let (mut found, mut at) = (Vec::new(), start + 1);
        while at < tokens.len() && word(at) != "}" {
            let (paths, end) = expand(tokens, at, base);
            found.extend(paths);
            at = end;
            while at < tokens.len() && word(at) != "}" && word(at) != "," {
                at += 1;
            }
            at += usize::from(word(at) == ",");
        }
        return (found, at + 1);
    }
    let Some((line, first)) = tokens.get(start) else { return (Vec::new(), start) };
    let mut path = base.to_vec();
    // `self` in a group is the group's own path.
    if first.starts_with(|c: char| c.is_alphabetic() || c == '_') && *first != "self" {
        path.push((*first).to_owned());
    }
    match word(start + 1) {
        "::" if word(start + 2) != "<" => expand(tokens, start + 2, &path),
        _ => (vec![(*line, path)], start + 1),
    }
}

/// Words, `::` and single other characters, each with its line; comments and the insides of texts left out.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((line, &rest[..length]));
            length
        } else if first.is_whitespace() {
            first.len_utf8()
        } else {
            let length = if rest.starts_with("::") { 2 } else { first.len_utf8() };
            found.push((line, &rest[..length]));
            length
        };
        line += rest.as_bytes()[..length].iter().filter(|byte| **byte == b'\n').count();
        rest = &rest[length..];
    }
    found
}

/// The length of the text or character that `rest` begins with.
fn literal(rest: &str) -> Option<usize> {
    let raw = rest.trim_start_matches(['b', 'r']);
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if rest.len() - raw.len() <= 2 && rest[..rest.len() - raw.len()].ends_with('r') && raw[hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let start = rest.len() - raw.len() + hashes + 1;
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    let quote = rest.chars().next().filter(|c| ['"', '\''].contains(c))?;
    // A lifetime has no closing quote after one character.
    if quote == '\'' && !rest[1..].starts_with('\\') && rest.chars().nth(2) != Some('\'') {
        return Some(1);
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}
