//! The language of `git update-ref --stdin`, with files. No I/O: it is fed line by line, or field by field.
//!
//! ```text
//! update <ref> <new> [<old>]        create <ref> <new>           delete <ref> [<old>]       verify <ref> [<old>]
//! symref-update <ref> <target> [(ref <old-target> | oid <old>)]  symref-create <ref> <target>
//! symref-delete <ref> [<target>]    symref-verify <ref> [<target>]                          option no-deref
//! write <path> <mode> <source> [<old>]                           remove <path> [<old>]
//! start   prepare   commit   abort
//! ```
//! Separated by single spaces, quoted like C strings where need be; with `-z` fields end with a NUL, as in git. An `<old>`
//! of zeros, or `absent` for files, means that nothing may be there; none means whatever.
//!
//! One input is one transaction: `start` may come first, `prepare` and `commit` last, and say nothing new. Behind `abort`
//! nothing is done at all. More than one transaction is refused.

use crate::apply::Deref;
use crate::fs::beneath::RelPath;
use crate::git::RefName;
use crate::util::quoted::unquote;
use crate::wal::FileMode;

/// The longest line or field, in bytes.
pub(crate) const LONGEST_LINE: usize = 16 << 10;

/// An object as somebody wrote it: its name, or anything that `git rev-parse` understands.
pub(crate) type Revision = Vec<u8>;

/// What is expected, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Old {
    /// Whatever.
    Anything,
    /// Nothing.
    Absent,
    /// This object.
    Revision(Revision),
    /// A symbolic ref to this one.
    Target(RefName),
}

/// Where the bytes of a file are, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bytes {
    /// In a file of that name.
    At(Vec<u8>),
    /// Here.
    Here(Vec<u8>),
}

/// One item of a transaction, as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A ref gets a value.
    Update(RefName, Revision, Old, Deref),
    /// A ref goes.
    Delete(RefName, Old, Deref),
    /// A ref becomes a symbolic one.
    Point(RefName, RefName, Old),
    /// A ref stays.
    Verify(RefName, Old, Deref),
    /// A file gets bytes and a mode.
    Write(RelPath, FileMode, Bytes, Old),
    /// A file goes.
    Remove(RelPath, Old),
}

/// A line that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("input line {number}: {why}")]
pub struct BadLine {
    number: usize,
    why: String,
}

/// How lines end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// With a line feed.
    LineFeed,
    /// With a NUL, after every field (`-z`).
    Nul,
}

/// Where the input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Fresh,
    Open,
    Prepared,
    Committed,
    Aborted,
}

/// Reads the language.
#[derive(Debug)]
pub struct Parser {
    ends: Ends,
    stage: Stage,
    deref: Deref,
    number: usize,
    /// With `-z`: a command that waits for its other fields.
    pending: Option<(Vec<u8>, Vec<Vec<u8>>)>,
    items: Vec<Item>,
}

impl Parser {
    /// Starts.
    #[must_use]
    pub fn new(ends: Ends) -> Parser {
        Parser { ends, stage: Stage::Fresh, deref: Deref::Yes, number: 0, pending: None, items: Vec::new() }
    }

    /// Takes a line (or, with [`Ends::Nul`], a field), without its end.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn feed(&mut self, text: &[u8]) -> Result<(), BadLine> {
        self.number += 1;
        self.take(text).map_err(|why| BadLine { number: self.number, why })
    }

    /// The input has ended: the items, or `None` when it was aborted.
    ///
    /// # Errors
    /// The last command is not complete.
    pub fn finish(self) -> Result<Option<Vec<Item>>, BadLine> {
        if let Some((command, _)) = &self.pending {
            let why = format!("the input ends in the middle of `{}`", command.escape_ascii());
            return Err(BadLine { number: self.number, why });
        }
        Ok((self.stage != Stage::Aborted).then_some(self.items))
    }

    fn take(&mut self, text: &[u8]) -> Result<(), String> {
        if text.len() > LONGEST_LINE {
            return Err(format!("it is longer than {LONGEST_LINE} bytes"));
        }
        if let Some((command, mut fields)) = self.pending.take() {
            fields.push(text.to_vec());
            return self.gather(command, fields);
        }
        let (command, rest) = match text.iter().position(|b| *b == b' ') {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let Some(count) = fields_of(command) else {
            return Err(format!("unknown command `{}`", command[..command.len().min(40)].escape_ascii()));
        };
        if (count == 0) != rest.is_none() {
            return Err(format!(
                "`{}` takes {}",
                command.escape_ascii(),
                if count == 0 { "nothing" } else { "a name" }
            ));
        }
        match (self.ends, rest) {
            (_, None) => self.control(command),
            (Ends::LineFeed, Some(rest)) => {
                let fields = split(rest)?;
                if fields.len() > count {
                    return Err(format!("`{}` takes at most {count} words", command.escape_ascii()));
                }
                self.command(command, &fields)
            }
            (Ends::Nul, Some(first)) => self.gather(command.to_vec(), vec![first.to_vec()]),
        }
    }

    fn gather(&mut self, command: Vec<u8>, fields: Vec<Vec<u8>>) -> Result<(), String> {
        if fields.len() < fields_of(&command).unwrap_or(0) {
            self.pending = Some((command, fields));
            return Ok(());
        }
        self.command(&command, &fields)
    }

    fn control(&mut self, command: &[u8]) -> Result<(), String> {
        self.stage = match (command, self.stage) {
            (b"start", Stage::Fresh) => Stage::Open,
            (b"prepare", Stage::Fresh | Stage::Open) => Stage::Prepared,
            (b"commit", Stage::Fresh | Stage::Open | Stage::Prepared) => Stage::Committed,
            (b"abort", Stage::Fresh | Stage::Open | Stage::Prepared) => Stage::Aborted,
            _ => return Err(format!("`{}` has no place here: one input is one transaction", command.escape_ascii())),
        };
        Ok(())
    }

    fn command(&mut self, command: &[u8], fields: &[Vec<u8>]) -> Result<(), String> {
        match self.stage {
            Stage::Fresh => self.stage = Stage::Open,
            Stage::Open => {}
            _ => return Err("nothing may follow on `prepare`, `commit` or `abort`".to_owned()),
        }
        if command == b"option" {
            if fields != [b"no-deref"] {
                return Err("the only option is `no-deref`".to_owned());
            }
            self.deref = Deref::No;
            return Ok(());
        }
        let item = self.item(command, fields)?;
        self.items.push(item);
        self.deref = Deref::Yes;
        Ok(())
    }

    fn item(&self, command: &[u8], fields: &[Vec<u8>]) -> Result<Item, String> {
        let z = self.ends == Ends::Nul;
        let deref = self.deref;
        // With -z an empty field is one that is not there; without, an empty old value is zeros.
        let field = |n: usize| fields.get(n).filter(|f| !(z && f.is_empty())).map(Vec::as_slice);
        let must = |n: usize, what: &str| field(n).ok_or_else(|| format!("{what} is missing"));
        let name = || RefName::parse(&fields[0]).map_err(|e| e.to_string());
        let target = |n| RefName::parse(must(n, "the target")?).map_err(|e| e.to_string());
        let path = || RelPath::parse(&fields[0]).map_err(|e| e.to_string());
        let old = |n: usize, none: Old| match field(n) {
            None => none,
            Some(text) if is_none(text) => Old::Absent,
            Some(text) => Old::Revision(text.to_vec()),
        };
        let old_target = |n: usize, none: Old| match field(n) {
            None => Ok(none),
            Some(text) => RefName::parse(text).map(Old::Target).map_err(|e| e.to_string()),
        };
        let old_blob = |n: usize| match field(n) {
            Some(b"absent") => Old::Absent,
            _ => old(n, Old::Anything),
        };
        Ok(match command {
            b"update" => match field(1) {
                Some(new) if !is_none(new) => Item::Update(name()?, new.to_vec(), old(2, Old::Anything), deref),
                None if !z => return Err("the new value is missing".to_owned()),
                _ => delete(name()?, old(2, Old::Anything), deref)?,
            },
            b"create" => match must(1, "the new value")? {
                new if is_none(new) => return Err("a ref cannot be created without a value".to_owned()),
                new => Item::Update(name()?, new.to_vec(), Old::Absent, deref),
            },
            b"delete" => delete(name()?, old(1, Old::Anything), deref)?,
            b"verify" => Item::Verify(name()?, old(1, Old::Absent), deref),
            b"symref-create" => Item::Point(name()?, target(1)?, Old::Absent),
            b"symref-delete" => Item::Delete(name()?, old_target(1, Old::Anything)?, Deref::No),
            b"symref-verify" => Item::Verify(name()?, old_target(1, Old::Absent)?, Deref::No),
            b"symref-update" => {
                let expected = match field(2) {
                    None => Old::Anything,
                    Some(b"ref") => old_target(3, Old::Anything)?,
                    Some(b"oid") => old(3, Old::Anything),
                    Some(_) => return Err("the old value begins with `ref` or `oid`".to_owned()),
                };
                if field(2).is_some() && field(3).is_none() {
                    return Err("the old value is missing".to_owned());
                }
                Item::Point(name()?, target(1)?, expected)
            }
            b"write" => {
                let mode = String::from_utf8_lossy(must(1, "the mode")?).parse()?;
                let source = Bytes::At(must(2, "the source")?.to_vec());
                Item::Write(path()?, mode, source, old_blob(3))
            }
            _ => Item::Remove(path()?, old_blob(1)),
        })
    }
}

fn delete(name: RefName, old: Old, deref: Deref) -> Result<Item, String> {
    if old == Old::Absent {
        return Err(format!("{name} cannot be deleted and expected to be absent"));
    }
    Ok(Item::Delete(name, old, deref))
}

/// Zeros of any length, an empty value included.
fn is_none(text: &[u8]) -> bool {
    text.iter().all(|b| *b == b'0')
}

fn fields_of(command: &[u8]) -> Option<usize> {
    Some(match command {
        b"start" | b"prepare" | b"commit" | b"abort" => 0,
        b"option" => 1,
        b"create" | b"delete" | b"verify" | b"symref-create" | b"symref-delete" | b"symref-verify" | b"remove" => 2,
        b"update" => 3,
        b"symref-update" | b"write" => 4,
        _ => return None,
    })
}

/// Words with one space between them; one that begins with `"` is quoted like a C string.
fn split(text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
    let mut words = Vec::new();
    let mut rest = text;
    loop {
        let (word, behind) = if rest.starts_with(b"\"") {
            unquote(rest).map_err(|error| error.to_string())?
        } else {
            let end = rest.iter().position(|b| *b == b' ').unwrap_or(rest.len());
            (rest[..end].to_vec(), &rest[end..])
        };
        words.push(word);
        match behind.split_first() {
            None => return Ok(words),
            Some((b' ', behind)) => rest = behind,
            Some(_) => return Err("a space is missing behind a quoted word".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(ends: Ends, input: &str) -> Result<Option<Vec<Item>>, String> {
        let end = if ends == Ends::Nul { '\0' } else { '\n' };
        let mut parser = Parser::new(ends);
        for text in input.strip_suffix(end).unwrap_or(input).split(end) {
            parser.feed(text.as_bytes()).map_err(|e| e.to_string())?;
        }
        parser.finish().map_err(|e| e.to_string())
    }

    #[test]
    fn both_forms_say_the_same() {
        let lines = "start\nupdate refs/heads/a HEAD~1\noption no-deref\nupdate HEAD abc 000\ncreate refs/heads/b v1\n\
                     delete refs/heads/c abc\nverify refs/heads/d\nsymref-update HEAD refs/heads/a ref refs/heads/b\n\
                     write \"a \\303\\244\\n\" 100755 ../source absent\nremove b abc\nprepare\ncommit\n";
        let fields = "start\0update refs/heads/a\0HEAD~1\0\0option no-deref\0update HEAD\0abc\x00000\0\
                      create refs/heads/b\0v1\0delete refs/heads/c\0abc\0verify refs/heads/d\0\0\
                      symref-update HEAD\0refs/heads/a\0ref\0refs/heads/b\0write a ä\n\x00100755\0../source\0absent\0\
                      remove b\0abc\0prepare\0commit\0";
        let items = parse(Ends::LineFeed, lines).unwrap().unwrap();
        assert_eq!(items.len(), 8);
        let name = |text: &str| RefName::parse(text.as_bytes()).unwrap();
        assert_eq!(items[1], Item::Update(name("HEAD"), b"abc".to_vec(), Old::Absent, Deref::No));
        assert_eq!(items[4], Item::Verify(name("refs/heads/d"), Old::Absent, Deref::Yes));
        assert_eq!(parse(Ends::Nul, fields).unwrap().unwrap(), items);
    }

    #[test]
    fn an_aborted_input_has_no_items() {
        assert_eq!(parse(Ends::LineFeed, "start\ncreate refs/heads/b v1\nabort\n").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_line() {
        for (input, said) in [
            ("nonsense x\n", "input line 1: unknown command `nonsense`"),
            ("start\n\n", "input line 2: unknown command ``"),
            ("update refs/heads/a\n", "the new value is missing"),
            ("create refs/heads/a 0000\n", "a ref cannot be created without a value"),
            ("delete refs/heads/a 0000\n", "cannot be deleted and expected to be absent"),
            ("update refs/heads/a..b x\n", "is not a valid ref name"),
            ("write ../x 100644 y\n", "`../x` is not a path in the worktree"),
            ("write .git/config 100644 y\n", "which is git's own"),
            ("write x 100664 y\n", "`100664` is not the mode of a file"),
            ("write x 100644\n", "the source is missing"),
            ("remove x y z\n", "takes at most 2 words"),
            ("write \"x 100644 y\n", "a quote does not end"),
            ("commit\ncommit\n", "one input is one transaction"),
            ("prepare\ncreate refs/heads/b v1\n", "nothing may follow"),
            ("option deref\n", "the only option is `no-deref`"),
            ("commit now\n", "`commit` takes nothing"),
        ] {
            let error = parse(Ends::LineFeed, input).unwrap_err();
            assert!(error.contains(said), "{input:?}: {error}");
        }
        assert!(parse(Ends::Nul, "update refs/heads/a\0x").unwrap_err().contains("ends in the middle of `update`"));
        let long = "x".repeat(LONGEST_LINE + 1);
        assert!(parse(Ends::LineFeed, &long).unwrap_err().contains("longer than"));
    }
}
