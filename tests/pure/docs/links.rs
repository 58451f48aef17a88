//! Every link and anchor leads somewhere, and the book is complete.

use std::collections::HashMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::{Page, lines, pages, root};

/// The targets of the links of a line. What is in backticks is no link.
fn targets(line: &str) -> Vec<String> {
    let outside: String = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
    let ends = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    ends.map(|(target, _)| target.to_owned()).collect()
}

/// The anchors that GitHub and mdBook give to headings.
fn anchors(text: &str) -> Vec<String> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut found = Vec::new();
    for (_, in_code, line) in lines(text) {
        let title = line.trim_start_matches('#');
        if in_code || title.len() == line.len() || !title.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
        let slug: String = title.trim().to_lowercase().chars().filter(kept).collect();
        let slug = slug.replace(' ', "-");
        let count = seen.entry(slug.clone()).and_modify(|count| *count += 1).or_insert(0);
        found.push(if *count == 0 { slug } else { format!("{slug}-{count}") });
    }
    found
}

/// Without `..` and `.`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// Why a link from `page` is wrong, if it is.
fn problem(page: &Page, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = match file {
        "" => page.path.clone(),
        file => plain(&page.path.parent().unwrap_or(Path::new("")).join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    if page.path.starts_with("docs") && !path.starts_with("docs") {
        return Some("it leaves the book".to_owned());
    }
    let anchor = anchor?;
    let text = fs::read_to_string(root().join(&path)).ok()?;
    (!anchors(&text).iter().any(|it| it == anchor)).then(|| format!("{} has no heading for it", path.display()))
}

#[test]
fn every_link_and_every_anchor_leads_somewhere() {
    let (mut wrong, mut count) = (Vec::new(), 0);
    for page in pages() {
        for (at, _, line) in lines(&page.text).filter(|(_, in_code, _)| !in_code) {
            for target in targets(line) {
                count += 1;
                wrong.extend(
                    problem(&page, &target).map(|why| format!("{}:{at}: {target}: {why}", page.path.display())),
                );
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(count > 100, "only {count} links were found");
}

#[test]
fn every_page_of_the_book_is_in_its_table_of_contents_and_in_its_index() {
    let docs = root().join("docs");
    let read = |name: &str| fs::read_to_string(docs.join(name)).expect("it is there");
    let (summary, index) = (read("SUMMARY.md"), read("README.md"));
    let names = pages().into_iter().filter(|page| page.path.starts_with("docs"));
    let names = names.map(|page| page.path.file_name().expect("it has a name").to_string_lossy().into_owned());
    let missing: Vec<String> = names
        .filter(|name| !matches!(name.as_str(), "SUMMARY.md" | "README.md"))
        .filter(|name| ![&summary, &index].iter().all(|list| list.contains(&format!("]({name})"))))
        .collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md or docs/README.md does not list {missing:?}");
}

/// The words of a text that name a file below docs.
fn named(text: &str) -> impl Iterator<Item = &str> {
    let is_end = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '#'));
    text.split(is_end)
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| word.starts_with("docs/") && word.contains('.'))
}

#[test]
fn every_page_that_the_program_and_the_scripts_name_exists() {
    let (mut texts, mut wrong) = (Vec::new(), Vec::new());
    super::sources(&root().join("src"), &mut texts);
    for script in ["install.sh", ".ci/run", "Cargo.toml"] {
        texts.push((script.to_owned(), fs::read_to_string(root().join(script)).expect("it is text")));
    }
    let top = Page { path: "README.md".into(), text: String::new() };
    for (name, text) in &texts {
        wrong.extend(named(text).filter_map(|word| Some(format!("{name}: {word}: {}", problem(&top, word)?))));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(texts.iter().any(|(_, text)| named(text).next().is_some()), "no page is named anywhere");
}
