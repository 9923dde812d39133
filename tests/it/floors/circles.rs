//! Circles between modules of one folder: `foo.rs` and its folder `foo/` are one module there, and the folder's own module is not
//! part of it, so that parent and child may know each other. A name that the parent imports or hands on counts as the sibling's
//! that it comes from.

use std::collections::{BTreeMap, BTreeSet};

use super::imports::{Import, Token, expand, imports, module_of, tokens};

/// Imports that a sentence names from one module to another.
const NAMED: usize = 3;

/// A module's place: its package, and its path in it.
type Place = (String, Vec<String>);

/// The modules of a folder that each module there imports, and the imports.
type Folder = BTreeMap<String, BTreeMap<String, Vec<String>>>;

/// A sentence for each circle between modules of one folder, for files given by path below `src` and text.
pub fn circles(files: &[(String, String)], packages: &[&str]) -> Vec<String> {
    let tree = Tree::read(files, packages);
    let mut folders: BTreeMap<Place, Folder> = BTreeMap::new();
    // Nothing imports files of tests, so that what they import closes no circle: the fixtures of a folder's tests serve those of its modules.
    let is_test = |file: &str| file.split(['/', '.']).any(|part| part == "tests");
    for (file, text) in files.iter().filter(|(file, _)| !is_test(file)) {
        let (package, module) = module_of(file, packages);
        for import in imports(package, &module, &tokens(text)).into_iter().filter(|import| import.package == package) {
            let target = tree.resolve(&import.package, &import.path, 0);
            let shared = module.iter().zip(&target).take_while(|(from, to)| *from == to).count();
            // What lies directly in `src` is ordered by floors.
            let is_ordered = package.is_empty() && shared == 0;
            if let (Some(from), Some(to), false) = (module.get(shared), target.get(shared), is_ordered) {
                let folder = folders.entry((package.to_owned(), target[..shared].to_vec())).or_default();
                let named = folder.entry((*from).to_owned()).or_default().entry(to.clone()).or_default();
                named.push(format!("src/{file}:{} imports `{}`", import.line, import.path.join("::")));
            }
        }
    }
    folders.iter().flat_map(|((package, path), folder)| sentences(package, path, folder)).collect()
}

/// The modules that there are, and the names that each imports.
struct Tree {
    modules: BTreeSet<Place>,
    names: BTreeMap<Place, BTreeMap<String, Vec<String>>>,
}

impl Tree {
    fn read(files: &[(String, String)], packages: &[&str]) -> Self {
        let mut tree = Self { modules: BTreeSet::new(), names: BTreeMap::new() };
        for (file, text) in files {
            let (package, module) = module_of(file, packages);
            let place = (package.to_owned(), module.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>());
            tree.names.insert(place.clone(), used(&place, &tokens(text)));
            tree.modules.insert(place);
        }
        tree
    }

    /// The module that a path leads to, through the imports of the modules on the way.
    fn resolve(&self, package: &str, path: &[String], depth: usize) -> Vec<String> {
        /// No name is handed on more often.
        const MOST: usize = 8;
        let mut place = (package.to_owned(), Vec::new());
        for (at, name) in path.iter().enumerate() {
            place.1.push(name.clone());
            if self.modules.contains(&place) {
                continue;
            }
            place.1.pop();
            if let Some(origin) = self.names.get(&place).and_then(|names| names.get(name)).filter(|_| depth < MOST) {
                let longer: Vec<String> = origin.iter().chain(&path[at + 1..]).cloned().collect();
                return self.resolve(package, &longer, depth + 1);
            }
            break;
        }
        place.1
    }
}

/// The names that the `use` lines of a module bring into it, with the paths that they come from. Those of modules inside it are
/// left out.
fn used((package, module): &Place, tokens: &[Token<'_>]) -> BTreeMap<String, Vec<String>> {
    let parts: Vec<&str> = module.iter().map(String::as_str).collect();
    let mut names = BTreeMap::new();
    let (mut at, mut open) = (0, 0_usize);
    while let Some((_, token)) = tokens.get(at) {
        match *token {
            "{" => open += 1,
            "}" => open = open.saturating_sub(1),
            "use" if open == 0 => {
                let end = (at..tokens.len()).find(|end| tokens[*end].1 == ";").unwrap_or(tokens.len());
                let line = &tokens[at + 1..end];
                let absolute = imports(package, &parts, line);
                let paths: Vec<Vec<String>> = match line.first().map(|(_, head)| *head) {
                    Some("crate" | "self" | "super") => absolute.into_iter().map(|Import { path, .. }| path).collect(),
                    // A child of the module, or a library: no file of ours answers to that path.
                    _ => expand(line, 0, module).0.into_iter().map(|(_, path)| path).collect(),
                };
                names.extend(paths.into_iter().filter_map(|path| Some((path.last()?.clone(), path))));
                at = end;
            }
            _ => {}
        }
        at += 1;
    }
    names
}

/// A sentence for each circle of a folder.
fn sentences(package: &str, path: &[String], folder: &Folder) -> Vec<String> {
    let reached: BTreeMap<&String, BTreeSet<&String>> = folder.keys().map(|module| (module, reachable(folder, module))).collect();
    let both = |a: &String, b: &String| reached[a].contains(b) && reached.get(b).is_some_and(|from| from.contains(a));
    let mut told: BTreeSet<&String> = BTreeSet::new();
    let mut found = Vec::new();
    for module in folder.keys().filter(|module| both(module, module)) {
        let circle: Vec<&String> = folder.keys().filter(|other| both(module, other)).collect();
        if circle.len() < 2 || !told.insert(module) {
            continue;
        }
        told.extend(&circle);
        let steps = circle.iter().flat_map(|from| folder[*from].iter().filter(|(to, _)| circle.contains(to)));
        let named: Vec<String> = steps.flat_map(|(_, imports)| imports.iter().take(NAMED).cloned()).collect();
        let place: Vec<&str> =
            ["src", package].into_iter().filter(|part| !part.is_empty()).chain(path.iter().map(String::as_str)).collect();
        let names: Vec<&str> = circle.iter().map(|name| name.as_str()).collect();
        found.push(format!(
            "the modules {} of {} import each other in a circle; move what they share to a file of its own: {}",
            names.join(", "),
            place.join("/"),
            named.join("; ")
        ));
    }
    found
}

/// The modules that imports lead to from a module, over however many others.
fn reachable<'a>(folder: &'a Folder, module: &String) -> BTreeSet<&'a String> {
    let mut found: BTreeSet<&String> = BTreeSet::new();
    let mut left: Vec<&String> = folder.get(module).into_iter().flat_map(BTreeMap::keys).collect();
    while let Some(next) = left.pop() {
        if found.insert(next) {
            left.extend(folder.get(next).into_iter().flat_map(BTreeMap::keys));
        }
    }
    found
}
