//! Every text in the program, in one file: what a person may be told can be read in one sitting.
//!
//! The texts are taken from the source, so that none can be left out: string literals of three words and more, but for those that
//! say why something cannot fail. `INSTA_UPDATE=always cargo test --test pure messages` writes the file anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// The string literals of a source file, without its tests.
fn literals(source: &str) -> Vec<String> {
    let source = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['"', '\'', '/']) {
        let before = &rest[..at];
        rest = &rest[at..];
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with('"') {
            let hashes = before.bytes().rev().take_while(|b| *b == b'#').count();
            let is_raw = before[..before.len() - hashes].ends_with('r');
            let (text, behind) = if is_raw { raw(rest, hashes) } else { quoted(rest) };
            let says_why = before.trim_end().ends_with(".expect(");
            found.extend((!says_why).then_some(text));
            rest = behind;
        } else {
            rest = &rest[character(rest)..];
        }
    }
    found
}

fn raw(text: &str, hashes: usize) -> (String, &str) {
    let end = format!("\"{}", "#".repeat(hashes));
    let length = text[1..].find(&end).expect("a literal ends");
    (text[1..=length].to_owned(), &text[1 + length + end.len()..])
}

/// A literal up to its end, with what goes on in the next line.
fn quoted(text: &str) -> (String, &str) {
    let mut said = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (said, &text[at + 1..]),
            '\\' => match chars.next().expect("an escape has a second character").1 {
                '\n' => while chars.next_if(|(_, c)| c.is_whitespace()).is_some() {},
                'n' => said.push('\n'),
                '"' => said.push('"'),
                other => said.extend(['\\', other]),
            },
            c => said.push(c),
        }
    }
    panic!("a literal ends: {text}");
}

/// How long a character literal is; a lifetime, or a stroke, is one byte.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), _) => text[3..].find('\'').map_or(1, |end| end + 4),
        (Some(_), Some((end, '\''))) => end + 1,
        _ => 1,
    }
}

fn collect(directory: &Path, found: &mut BTreeMap<PathBuf, Vec<String>>) {
    for entry in fs::read_dir(directory).expect("it can be read").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|end| end == "rs") && !path.to_string_lossy().contains("tests") {
            let is_text = |text: &String| text.split_whitespace().count() > 2;
            let texts = literals(&fs::read_to_string(&path).expect("it can be read"));
            found.insert(path, texts.into_iter().filter(is_text).collect());
        }
    }
}

fn all() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    collect(&root, &mut found);
    let mut list = String::new();
    for (path, texts) in found.iter().filter(|(_, texts)| !texts.is_empty()) {
        list += &format!("{}\n", path.strip_prefix(&root).expect("it lies below").display());
        for text in texts {
            list += &format!("  {}\n", text.trim_end().replace('\n', "\n  | "));
        }
        list.push('\n');
    }
    list
}

#[test]
fn every_message_is_in_one_list() {
    insta::assert_snapshot!("messages", all());
}

#[test]
fn no_message_is_a_riddle() {
    const RIDDLES: [&str; 6] =
        ["is no path", "that is no file", "no regular file", "is no ref", "without sense", "whoever"];
    let list = all();
    let lines = list.lines();
    let riddles: Vec<&str> = lines.filter(|line| RIDDLES.iter().any(|riddle| line.contains(riddle))).collect();
    assert!(riddles.is_empty(), "{riddles:#?}");
}

#[test]
fn literals_are_told_from_what_looks_like_them() {
    let source = r##"// "no, this is not"
        let a = "one two \
                 three"; let q = '"'; let e = '\''; let l: &'static str = r#"raw "four" five"#;
        x.expect("because it cannot fail"); y / z; "six\nseven""##;
    assert_eq!(literals(source), ["one two three", "raw \"four\" five", "six\nseven"]);
}
