//! Every command line of ours in the documentation is one that the program takes.

use std::ffi::OsString;

use jin_txn::internals;

use super::{lines, pages};

/// The command lines of ours in a line of a code block: behind a prompt, in a substitution, or alone.
fn in_block(line: &str) -> Vec<&str> {
    let line = line.trim_start();
    let line = line.strip_prefix("$ ").unwrap_or(line);
    let inner = line.split_once("$(").and_then(|(_, rest)| rest.rsplit_once(')')).map(|(inner, _)| inner);
    std::iter::once(line).chain(inner).filter(|it| is_ours(it)).collect()
}

fn is_ours(line: &str) -> bool {
    let words: Vec<&str> = line.split(' ').take(2).collect();
    match words[..] {
        // `jin-txn: ...` is what the program says, `jin-txn-...` something else.
        ["jin-txn", _] => true,
        ["git", second] => matches!(second, "txn" | "tx"),
        _ => false,
    }
}

/// The arguments of the program that a shell makes of this line.
fn arguments(line: &str) -> Option<Vec<OsString>> {
    let words = shlex::split(line)?;
    let ends = |word: &String| matches!(word.as_str(), "|" | "&&" | "||" | ";" | "&" | ">" | ">>" | "<");
    let words: Vec<String> = words.into_iter().take_while(|word| !ends(word)).collect();
    let (rest, before): (&[String], &[&str]) = match words.first()?.as_str() {
        "jin-txn" => (&words[1..], &[]),
        "git" if words.get(1)? == "txn" => (&words[2..], &[]),
        _ => (&words[2..], &["run", "--", "git"]),
    };
    Some(before.iter().map(OsString::from).chain(rest.iter().map(|word| as_argument(word).into())).collect())
}

/// What stands for an operation is one.
fn as_argument(word: &str) -> &str {
    if word == "ID" { "tx-1" } else { word }
}

/// Command lines in the prose: in backticks, without an ellipsis, optional parts or alternatives.
fn in_prose(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2);
    spans.filter(|span| is_ours(span) && !span.contains("...") && !span.contains(['|', '[']))
}

/// Why the program does not take it, in a line.
fn refused(command: &str) -> Option<String> {
    let Some(arguments) = arguments(command) else { return Some("no shell reads it".to_owned()) };
    let why = internals::accepts(arguments).err()?;
    why.lines().next().map(str::to_owned)
}

/// Prose may name a command without the arguments that it needs, and the program without a command.
fn is_mention(why: &str) -> bool {
    why.contains("required arguments were not provided") || !why.starts_with("error:")
}

#[test]
fn every_command_line_of_the_documentation_is_taken_by_the_program() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages().into_iter().filter(|page| !page.path.ends_with("CHANGELOG.md")) {
        for (at, in_code, line) in lines(&page.text) {
            let found: Vec<&str> = if in_code { in_block(line) } else { in_prose(line).collect() };
            for command in found.into_iter().filter(|it| !it.contains(" ...")) {
                count += 1;
                let why = refused(command).filter(|why| in_code || !is_mention(why));
                wrong.extend(why.map(|why| format!("{}:{at}: {command}: {why}", page.path.display())));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "only {count} command lines were found");
}
