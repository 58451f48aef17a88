//! What the documentation says is true as far as a program can tell: links, command lines, figures, names of tests.

mod commands;
mod figures;
mod links;

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A page of the documentation.
struct Page {
    /// Its path below the top of the sources.
    path: PathBuf,
    text: String,
}

/// Every page that a reader meets, the top ones first.
fn pages() -> Vec<Page> {
    let top =
        ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "tests/powercut/README.md"];
    let docs = fs::read_dir(root().join("docs")).expect("it can be read").flatten();
    let mut docs: Vec<PathBuf> = docs.map(|entry| Path::new("docs").join(entry.file_name())).collect();
    docs.retain(|path| path.extension().is_some_and(|it| it == "md"));
    docs.sort();
    let read = |path: PathBuf| Page { text: fs::read_to_string(root().join(&path)).expect("it is text"), path };
    top.into_iter().map(PathBuf::from).chain(docs).map(read).collect()
}

/// The lines of a page, each with its number and whether it lies in a code block.
fn lines(text: &str) -> impl Iterator<Item = (usize, bool, &str)> {
    let mut in_code = false;
    text.lines().enumerate().map(move |(at, line)| {
        let is_fence = line.trim_start().starts_with("```");
        in_code ^= is_fence;
        (at + 1, in_code || is_fence, line)
    })
}

fn sources(dir: &Path, into: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).expect("it can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|it| it == "rs") {
            let name = path.file_name().expect("it has a name").to_string_lossy().into_owned();
            into.push((name, fs::read_to_string(&path).expect("it is text")));
        }
    }
}

#[test]
fn every_test_that_the_documentation_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    sources(&root.join("tests"), &mut all);
    sources(&root.join("src"), &mut all);
    let mut count = 0;
    let mut missing = Vec::new();
    for document in ["docs/transaction-flow.md", "docs/security.md", "ARCHITECTURE.md"] {
        let text = fs::read_to_string(root.join(document)).expect("it is there");
        for named in text.split('`').filter(|word| word.contains(".rs::")) {
            let (file, test) = named.split_once("::").expect("it has both");
            // A function, or a row of a macro that makes functions.
            let defines = |text: &str| {
                text.lines().map(str::trim).any(|line| {
                    line.strip_prefix("fn ")
                        .unwrap_or(line)
                        .strip_prefix(test)
                        .is_some_and(|rest| rest.is_empty() || rest.starts_with('(') || rest.starts_with(" \""))
                })
            };
            count += 1;
            if !all.iter().any(|(name, text)| name == file && defines(text)) {
                missing.push(format!("{document}: {named}"));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(count > 80, "only {count} tests are named");
}

/// Each patch that breaks the protocol stands in the table with the test that notices it, and there is that test.
#[test]
fn every_mutation_is_in_the_table_and_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    sources(&root.join("tests"), &mut all);
    sources(&root.join("src"), &mut all);
    let document = fs::read_to_string(root.join("docs/reliability.md")).expect("it is there");
    let (mut names, mut wrong) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(root.join("tests/mutations")).expect("it can be read").flatten() {
        let Some(name) = entry.file_name().to_str().and_then(|name| name.strip_suffix(".patch").map(str::to_owned))
        else {
            continue;
        };
        let patch = fs::read_to_string(entry.path()).expect("it is text");
        let words = patch.lines().find_map(|line| line.strip_prefix("caught-by: ")).expect("it names a test");
        let path = words.rsplit(' ').next().expect("there is a word");
        let (module, test) = path.rsplit_once("::").unwrap_or(("", path));
        let file = module.rsplit("::").next().map(|last| format!("{last}.rs")).unwrap_or_default();
        let is_there = |(name, text): &(String, String)| {
            (module.is_empty() || *name == file) && text.contains(&format!("fn {test}("))
        };
        if !all.iter().any(is_there) {
            wrong.push(format!("{name}: there is no {path}"));
        }
        let row = document.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        if !row.is_some_and(|row| row.contains(&format!("`{test}`"))) {
            wrong.push(format!("{name} is not in the table with {test}"));
        }
        if !document.lines().any(|line| line.starts_with("| I") && line.contains(&format!("`{name}`"))) {
            wrong.push(format!("{name} belongs to no invariant"));
        }
        wrong.extend(does_not_apply(&patch).map(|file| format!("{name} does not apply to {file}")));
        names.push(name);
    }
    let (_, behind) = document.split_once("\n## Mutations\n").expect("the section is there");
    let section = behind.split("\n## ").next().expect("there is a first part");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    wrong.extend(rows.filter(|(name, _)| !names.iter().any(|it| it == name)).map(|(n, _)| n.to_owned()));
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(!names.is_empty());
}

/// The first file in which the lines of a hunk, those of the context and those that go, are not found together.
fn does_not_apply(patch: &str) -> Option<String> {
    let (_, diff) = patch.split_once("\ndiff --git ").expect("there is a patch");
    diff.split("\ndiff --git ").find_map(|part| {
        let file = part.lines().find_map(|line| line.strip_prefix("+++ b/")).expect("it names a file");
        let text = fs::read_to_string(root().join(file)).unwrap_or_default();
        let old = |hunk: &str| -> String {
            let lines = hunk.lines().skip(1).filter(|line| !line.starts_with('+') && !line.starts_with('\\'));
            lines.map(|line| format!("{}\n", line.get(1..).unwrap_or_default())).collect()
        };
        let mut hunks = part.split("\n@@ ").skip(1);
        hunks.any(|hunk| !text.contains(&old(hunk))).then(|| file.to_owned())
    })
}

/// The public fields of a struct in the sources.
fn fields(source: &str, name: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(source)).expect("it is text");
    let (_, behind) = text.split_once(&format!("pub struct {name} {{")).expect("there is this struct");
    let body = behind.split("\n}").next().expect("there is a first part");
    let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub ")?.split_once(':'));
    fields.map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_page_about_the_log_names_every_type_and_every_field_of_a_begin_and_of_a_marker() {
    let page = fs::read_to_string(root().join("docs/log-format.md")).expect("it is there");
    let codec = fs::read_to_string(root().join("src/wal/codec.rs")).expect("it is text");
    let (_, kinds) = codec.split_once("fn kind(&self)").expect("there is this function");
    let kinds = kinds.split("\n    }").next().expect("there is a first part");
    let types = kinds.split('"').skip(1).step_by(2).filter(|kind| *kind != "unknown").map(str::to_owned);
    let mut named: Vec<String> = types.collect();
    assert!(named.len() > 8, "{named:?}");
    for (source, name) in [("src/wal/record.rs", "Begin"), ("src/state/marker.rs", "Marker")] {
        // An owner's own fields stand in its place.
        named.extend(fields(source, name).into_iter().filter(|field| field != "owner"));
    }
    let missing: Vec<&String> = named.iter().filter(|name| !page.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "docs/log-format.md does not name {missing:?}");
}
