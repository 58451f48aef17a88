//! The rooms of `src`: each imports only from rooms below it, and no files import each other in a circle.
//!
//! Read as text from `crate::` paths, tests left out: what a macro or a re-export hides is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// From the ground floor up. Rooms of one floor do not import from each other.
const FLOORS: [&[&str]; 14] = [
    &["util"],
    &["fs"],
    &["process"],
    &["git"],
    &["state"],
    &["wal"],
    &["locks", "observe", "run", "staging", "trust"],
    &["recovery"],
    &["rescue"],
    &["apply", "hook"],
    &["watch"],
    &["undo", "setup"],
    &["cli"],
    &["main", "lib"],
];

/// A source file as the modules that its paths name: `recovery/mod.rs` is `recovery`.
struct Source {
    module: Vec<String>,
    file: PathBuf,
    uses: Vec<Vec<String>>,
}

impl Source {
    fn room(&self) -> &str {
        &self.module[0]
    }
}

fn source_files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&root, &mut files);
    let is_test = |path: &PathBuf| {
        let stem = path.file_stem().expect("a file has a name").to_string_lossy();
        stem == "tests" || stem.ends_with("_tests")
    };
    let read = |path: PathBuf| {
        let inside = path.strip_prefix(&root).expect("it lies in src").with_extension("");
        let mut module: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        if module.last().is_some_and(|last| last == "mod") {
            module.pop();
        }
        let uses = uses_of(&fs::read_to_string(&path).expect("it can be read"));
        Source { module, file: path.strip_prefix(&root).expect("it lies in src").to_owned(), uses }
    };
    files.into_iter().filter(|path| !is_test(path)).map(read).collect()
}

/// The `crate::` paths of a text, those in braces one by one, without comments and what follows `#[cfg(test)]`.
fn uses_of(text: &str) -> Vec<Vec<String>> {
    let code: String = text
        .split("#[cfg(test)]")
        .next()
        .unwrap_or_default()
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut paths = Vec::new();
    for part in code.split("crate").skip(1).filter(|part| part.starts_with("::")) {
        leaves(part, &mut Vec::new(), &mut paths);
    }
    paths
}

/// Reads one path, with its braces, from the beginning of `text`; returns what is behind it.
fn leaves<'t>(text: &'t str, prefix: &mut Vec<String>, found: &mut Vec<Vec<String>>) -> &'t str {
    let depth = prefix.len();
    let mut rest = text;
    loop {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (word, behind) = rest.split_at(end);
        if !word.is_empty() && word != "self" {
            prefix.push(word.to_owned());
        }
        rest = behind;
        if let Some(behind) = rest.strip_prefix("::") {
            rest = behind;
            if let Some(mut inner) = rest.strip_prefix('{') {
                loop {
                    inner = leaves(inner.trim_start(), prefix, found).trim_start();
                    match inner.strip_prefix(',') {
                        Some(more) => inner = more,
                        None => break,
                    }
                    if inner.trim_start().starts_with('}') {
                        inner = inner.trim_start();
                        break;
                    }
                }
                prefix.truncate(depth);
                return inner.strip_prefix('}').unwrap_or(inner);
            }
            continue;
        }
        found.push(prefix.clone());
        prefix.truncate(depth);
        // `as` gives another name to what was read.
        let behind = rest.trim_start();
        return match behind.strip_prefix("as ") {
            Some(named) => named.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
            None => rest,
        };
    }
}

/// The file that a path leads to: that of the longest module which it names.
fn target<'s>(sources: &'s [Source], path: &[String]) -> Option<&'s Source> {
    (1..=path.len()).rev().find_map(|len| sources.iter().find(|source| source.module == path[..len]))
}

fn floor(room: &str) -> usize {
    FLOORS
        .iter()
        .position(|rooms| rooms.contains(&room))
        .unwrap_or_else(|| panic!("the room `{room}` is on no floor: give it one, in tests/pure/layers.rs"))
}

/// Every import that does not lead down, as a line.
fn arrows_up(sources: &[Source]) -> Vec<String> {
    let mut wrong = BTreeSet::new();
    for source in sources {
        for path in &source.uses {
            let (from, to) = (source.room(), path[0].as_str());
            let leads_to_a_room = sources.iter().any(|other| other.room() == to);
            if from != to && leads_to_a_room && floor(to) >= floor(from) {
                wrong.insert(format!("{} imports crate::{}", source.file.display(), path.join("::")));
            }
        }
    }
    wrong.into_iter().collect()
}

/// Which files each file imports from.
type Arrows<'s> = BTreeMap<&'s Path, BTreeSet<&'s Path>>;

fn reachable<'s>(arrows: &Arrows<'s>, from: &'s Path) -> BTreeSet<&'s Path> {
    let (mut seen, mut todo) = (BTreeSet::new(), vec![from]);
    while let Some(at) = todo.pop() {
        todo.extend(arrows.get(at).into_iter().flatten().filter(|next| seen.insert(**next)));
    }
    seen
}

/// Files that import each other, directly or over others: one circle a line.
fn circles(sources: &[Source]) -> Vec<String> {
    let mut arrows: Arrows<'_> = BTreeMap::new();
    for source in sources {
        let targets = source.uses.iter().filter_map(|path| target(sources, path)).map(|to| to.file.as_path());
        arrows.entry(&source.file).or_default().extend(targets.filter(|to| *to != source.file));
    }
    let reach: Arrows<'_> = arrows.keys().map(|file| (*file, reachable(&arrows, file))).collect();
    let mut found = BTreeSet::new();
    for (file, seen) in &reach {
        if seen.contains(file) {
            let members = seen.iter().filter(|other| reach.get(**other).is_some_and(|back| back.contains(file)));
            found.insert(members.map(|member| member.display().to_string()).collect::<Vec<_>>().join(", "));
        }
    }
    found.into_iter().collect()
}

#[test]
fn rooms_import_only_from_rooms_below_them() {
    let sources = sources();
    assert!(sources.len() > 50, "the sources were found");
    let wrong = arrows_up(&sources);
    assert!(wrong.is_empty(), "imports that lead up, or to a room of the same floor:\n{}", wrong.join("\n"));
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let found = circles(&sources());
    assert!(found.is_empty(), "circles:\n{}", found.join("\n"));
}

#[test]
fn an_import_upwards_and_a_circle_are_found() {
    let source = |module: &str, text: &str| Source {
        module: module.split("::").map(str::to_owned).collect(),
        file: format!("{}.rs", module.replace("::", "/")).into(),
        uses: uses_of(text),
    };
    let mut sources = vec![
        source(
            "wal::log",
            "use crate::state::{TxId, marker::{self, Entry as Found}};\nuse crate::wal::scan::Scan;\nuse crate::{fs, util::text::escape};",
        ),
        source("wal::scan", "use crate::fs::named as fs;"),
        source("state", ""),
        source("state::marker", ""),
        source("fs", ""),
    ];
    assert_eq!(
        sources[0].uses.iter().map(|path| path.join("::")).collect::<Vec<_>>(),
        ["state::TxId", "state::marker", "state::marker::Entry", "wal::scan::Scan", "fs", "util::text::escape"]
    );
    assert_eq!((arrows_up(&sources), circles(&sources)), (Vec::new(), Vec::new()), "all is well");
    sources[3] =
        source("state::marker", "fn f() { crate::wal::log::g() } // crate::cli\n#[cfg(test)] use crate::cli::X;");
    assert_eq!(arrows_up(&sources), ["state/marker.rs imports crate::wal::log::g"]);
    assert_eq!(circles(&sources), ["state/marker.rs, wal/log.rs"]);
}
