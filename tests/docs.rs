//! What the documentation says of the tests is true as far as a program can tell.

use std::fs;
use std::path::Path;

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
