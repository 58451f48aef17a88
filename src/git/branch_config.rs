//! The sections of branches in a configuration: found, taken out, and put back where they stood.
//!
//! Limit: lines are read as git writes them. A section that is written in another way is not found, so that whoever changes a
//! configuration compares the result as git reads it: [`settings`].

use crate::git::{Git, Plumbing};

/// Lines of a configuration that follow each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Section {
    /// Where they began, in bytes.
    pub at: usize,
    pub lines: Vec<u8>,
}

/// What a line says in front of sections that are kept: where they stood.
const PLACE: &[u8] = b"# at ";

/// The sections `[branch "<name>"]` of these branches.
pub(crate) fn sections(text: &[u8], names: &[&[u8]]) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    walk(text, names, |at, line, is_wanted, is_first| match found.last_mut().filter(|_| !is_first) {
        _ if !is_wanted => {}
        Some(section) => section.lines.extend_from_slice(line),
        None => found.push(Section { at, lines: line.to_vec() }),
    });
    found
}

/// The sections of these branches among `sections`.
pub(crate) fn only(found: &[Section], names: &[&[u8]]) -> Vec<Section> {
    let of_names = |section: &Section| {
        let found = sections(&section.lines, names);
        found.into_iter().map(|it| Section { at: section.at + it.at, ..it }).collect::<Vec<_>>()
    };
    found.iter().flat_map(of_names).collect()
}

/// All but the sections of these branches.
pub(crate) fn without(text: &[u8], names: &[&[u8]]) -> Vec<u8> {
    let mut rest = Vec::with_capacity(text.len());
    walk(text, names, |_, line, is_wanted, _| {
        if !is_wanted {
            rest.extend_from_slice(line);
        }
    });
    rest
}

/// The configuration with these sections: where they stood, if another section begins or the file ends there; else at the end. Are
/// all of them where they stood?
pub(crate) fn with(mut text: Vec<u8>, sections: &[Section]) -> (Vec<u8>, bool) {
    let mut all_fit = true;
    for Section { at, lines } in sections {
        if !is_start_of_line(&text, text.len()) {
            text.push(b'\n');
        }
        let begins = |rest: &[u8]| rest.is_empty() || rest.trim_ascii_start().starts_with(b"[");
        let fits = text.get(*at..).is_some_and(begins) && is_start_of_line(&text, *at);
        all_fit &= fits;
        let place = if fits { *at } else { text.len() };
        text.splice(place..place, lines.iter().copied());
    }
    (text, all_fit)
}

/// Are these the same sections, but for the name in their headers, and are those written as git writes them?
pub(crate) fn is_renamed((from, sections): (&[u8], &[Section]), (to, others): (&[u8], &[Section])) -> bool {
    let is_plain = |line: &Option<&[u8]>| line.is_none_or(|line| !line.trim_ascii_start().starts_with(b"["));
    let is_same = |(one, other): (&Section, &Section)| {
        let (one, other) = (without_headers(one, from), without_headers(other, to));
        one.iter().all(is_plain) && one == other
    };
    sections.len() == others.len() && sections.iter().zip(others).all(is_same)
}

/// The lines of a section, with nothing for the headers of this branch.
fn without_headers<'s>(section: &'s Section, name: &[u8]) -> Vec<Option<&'s [u8]>> {
    let header = header(name);
    let lines = section.lines.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| (line != header).then_some(line)).collect()
}

/// The configuration with others in the places of these sections, which it has.
pub(crate) fn replaced(text: &[u8], sections: &[Section], others: &[Section]) -> Vec<u8> {
    let mut replaced = Vec::with_capacity(text.len());
    let mut end = 0;
    for (section, other) in sections.iter().zip(others) {
        replaced.extend_from_slice(&text[end..section.at]);
        replaced.extend_from_slice(&other.lines);
        end = section.at + section.lines.len();
    }
    replaced.extend_from_slice(&text[end..]);
    replaced
}

/// The line with which git begins the section of a branch.
fn header(name: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(name.len());
    for byte in name {
        escaped.extend(b"\"\\".contains(byte).then_some(b'\\'));
        escaped.push(*byte);
    }
    [b"[branch \"".as_slice(), &escaped, b"\"]\n"].concat()
}

fn is_start_of_line(text: &[u8], at: usize) -> bool {
    at == 0 || text.get(at - 1) == Some(&b'\n')
}

/// Calls for each line: where it begins, whether it is of a wanted section, and whether the line before is not.
fn walk(text: &[u8], names: &[&[u8]], mut each: impl FnMut(usize, &[u8], bool, bool)) {
    let (mut at, mut inside) = (0, false);
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        let (start, was) = (line.trim_ascii_start(), inside);
        if start.starts_with(b"[") {
            inside = branch_of(start).is_some_and(|name| names.contains(&name.as_slice()));
        }
        each(at, line, inside, inside && !was);
        at += line.len();
    }
}

/// May there be sections of these branches that are not written as git writes them, and are not found?
pub(crate) fn has_others(text: &[u8], names: &[&[u8]]) -> bool {
    let lower =
        |bytes: &[u8]| -> Vec<u8> { bytes.iter().filter(|byte| **byte != b'\\').map(u8::to_ascii_lowercase).collect() };
    let has = |line: &[u8], part: &[u8]| part.is_empty() || line.windows(part.len()).any(|window| window == part);
    let names: Vec<Vec<u8>> = names.iter().map(|name| lower(name)).collect();
    text.split(|byte| *byte == b'\n').any(|line| {
        let plain = lower(line);
        has(&plain, b"[branch")
            && branch_of(line.trim_ascii_start()).is_none()
            && names.iter().any(|name| has(&plain, name))
    })
}

/// The branch of a section that begins with this line.
fn branch_of(line: &[u8]) -> Option<Vec<u8>> {
    let mut rest = line.strip_prefix(b"[branch \"")?.iter();
    let mut name = Vec::new();
    loop {
        match rest.next()? {
            b'"' => return rest.as_slice().starts_with(b"]").then_some(name),
            b'\\' => name.push(*rest.next()?),
            byte => name.push(*byte),
        }
    }
}

/// Sections as a file: each behind a line with its place and its length.
pub(crate) fn encode(sections: &[Section]) -> Vec<u8> {
    let one = |section: &Section| {
        let end: &[u8] = if section.lines.ends_with(b"\n") { b"" } else { b"\n" };
        let length = section.lines.len() + end.len();
        [PLACE, format!("{} {length}\n", section.at).as_bytes(), &section.lines, end].concat()
    };
    sections.iter().flat_map(one).collect()
}

/// The sections in such a file.
pub(crate) fn decode(file: &[u8]) -> Vec<Section> {
    let mut found: Vec<Section> = Vec::new();
    let mut rest = file;
    while let Some((section, behind)) = first(rest) {
        found.push(section);
        rest = behind;
    }
    found
}

fn first(file: &[u8]) -> Option<(Section, &[u8])> {
    let end = file.iter().position(|byte| *byte == b'\n')?;
    let (at, length) = std::str::from_utf8(file[..end].strip_prefix(PLACE)?).ok()?.split_once(' ')?;
    let (lines, rest) = file[end + 1..].split_at_checked(length.parse().ok()?)?;
    Some((Section { at: at.parse().ok()?, lines: lines.to_vec() }, rest))
}

/// A key, and its value if it has one, separated by a line feed.
pub(crate) type Setting = Vec<u8>;

/// What git reads in a configuration, without what that includes.
pub(crate) fn settings(git: &Git, text: &[u8]) -> anyhow::Result<Vec<Setting>> {
    let ran = git.command(Plumbing::ConfigText).stdin(text.to_vec()).run()?;
    anyhow::ensure!(ran.success, "git cannot read the configuration: {}", ran.stderr);
    Ok(ran.split(0).map(<[u8]>::to_vec).collect())
}

/// The name and the value of a setting of this branch.
pub(crate) fn of_branch<'s>(setting: &'s [u8], branch: &[u8]) -> Option<(&'s [u8], &'s [u8])> {
    let rest = setting.strip_prefix(b"branch.")?.strip_prefix(branch)?.strip_prefix(b".")?;
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (name, value) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    (!name.contains(&b'.')).then_some((name, value))
}

/// Do two configurations say the same but for these branches?
pub(crate) fn differ_in_branches_only(git: &Git, one: &[u8], other: &[u8], branches: &[&[u8]]) -> anyhow::Result<bool> {
    let others = |text: &[u8]| -> anyhow::Result<Vec<Setting>> {
        let mut found = settings(git, text)?;
        found.retain(|setting| branches.iter().all(|branch| of_branch(setting, branch).is_none()));
        Ok(found)
    };
    Ok(others(one)? == others(other)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_come_back_where_they_stood() {
        let text = b"[core]\n\tbare = false\n[branch \"a\"]\n\tx = 1\n# at 7\n# at 7 3\n\tz = 1\n[remote \"o\"]\n[branch \"a\\\"b\"]\n\ty = 2\n[branch \"c\"]\n";
        for names in [&[&b"a"[..]][..], &[b"a\"b"], &[b"c"], &[b"a", b"c"], &[b"a\"b", b"c"], &[b"d"]] {
            let (kept, rest) = (decode(&encode(&sections(text, names))), without(text, names));
            assert_eq!(with(rest, &kept), (text.to_vec(), true), "{names:?}");
        }
        let kept = sections(text, &[b"a"]);
        assert_eq!(
            with(b"[core]\n\tlonger = than it was".to_vec(), &kept).0,
            b"[core]\n\tlonger = than it was\n[branch \"a\"]\n\tx = 1\n# at 7\n# at 7 3\n\tz = 1\n"
        );
    }
}
