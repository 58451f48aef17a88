//! Refs: what each says, and what it becomes.
//!
//! ```text
//!  says a value whose own files are there ▶ stays; a hole in its history is told
//!  says nothing, or another value ────────▶ the newest value whose own files are there, of: itself and its ancestors, its reflog,
//!                                           packed-refs, HEAD's reflog, its remote-tracking branch (told as a loss)
//!  of a branch nothing whole is known ────▶ the value of HEAD: the name stays; where HEAD has none, it is left as it is
//!  of another ref nothing whole is known ─▶ quarantine
//! ```
//! A reflog without a ref is a ref that was lost: git removes both, the reflog first.

use std::collections::{BTreeMap, BTreeSet};

use crate::git::name::in_the_way;
use crate::git::refs::log_path;
use crate::git::{Oid, RefName, Repository, Value};
use crate::rescue::claims::Claims;
use crate::rescue::heads::Heads;
use crate::rescue::histories::Histories;
use crate::rescue::log::Log;
use crate::rescue::packed::Packed;
use crate::rescue::plan::{Plan, short};
use crate::rescue::salvage::Reach;

/// Where the values come from that refs get.
struct Search<'s> {
    repo: &'s Repository,
    claims: &'s Claims,
    heads: &'s Heads,
    /// Commits that nothing names.
    unnamed: &'s [Oid],
    /// Of more than one branch nothing whole is known, and HEAD has no commit that they could get, nor will have one: of those that
    /// nothing names each would get another one when the rescue is killed and run again.
    has_no_base: bool,
}

/// Plans what becomes of every ref. Returns those of which the ref and its reflog go to quarantine.
pub(crate) fn decide(
    repo: &Repository,
    claims: &Claims,
    heads: &Heads,
    reach: &Reach,
    histories: &mut Histories,
    plan: &mut Plan,
) -> anyhow::Result<BTreeSet<RefName>> {
    let mut given_up = BTreeSet::new();
    let mut search = Search { repo, claims, heads, unnamed: &reach.dangling_commits, has_no_base: false };
    let mut packed = claims.packed.entries.clone();
    let mut names: BTreeSet<&RefName> = claims.loose.keys().chain(claims.packed.entries.keys()).collect();
    names.extend(claims.logs.keys().filter(|name| search.is_lost(name)));
    // Of a branch without a reflog `packed-refs` was the only trace. Beside other branches it may as well have no commit yet: an empty
    // `packed-refs` is what git reads as none.
    let may_be_lost = (claims.packed.is_damaged || claims.lost_loose) && claims.branches().is_empty();
    names.extend(heads.branches().filter(|name| may_be_lost && !claims.knows(name)));
    let has_base =
        heads.main_branch().is_none_or(|branch| names.contains(branch) || claims.visible(branch).oid().is_some());
    search.has_no_base = !has_base && is_lost_many(claims, heads, histories)?;
    // The branch of HEAD first: the others may get its commit, also when this is killed and run again.
    let of_heads: Vec<&RefName> = heads.branches().filter(|name| names.remove(name)).collect();
    for name in of_heads.into_iter().chain(names) {
        let now = claims.visible(name);
        match &now {
            Value::Symref(_) => continue,
            Value::Oid(oid) if histories.is_elsewhere(oid)? => {
                let loss = format!("{name}: it is {oid}, which is not here");
                plan.lost(wrong(name, &now), "it stays: the server, or the alternate, may have it", loss);
                continue;
            }
            Value::Oid(oid) if search.is_outdated(name, oid) => {}
            Value::Oid(oid) if histories.is_whole(oid)? => continue,
            Value::Oid(oid) if histories.may_stay(oid)? => {
                search.leave(name, &now, *oid, Some(oid), plan);
                continue;
            }
            _ => {}
        }
        let mut candidates = claims.own(name, heads.of_branch(name));
        if search.hides_older(name) {
            // What `packed-refs` says is what the ref was before the file that is lost.
            let packed = candidates.len().min(usize::from(now.oid().is_some()));
            candidates.rotate_left(packed);
        }
        let last = candidates.first().copied();
        let is_older = now == Value::Broken && last.is_some() && !search.is_logged(name);
        // What a remote-tracking branch says is no value that the branch itself had.
        candidates.extend(claims.copies(name));
        let is_branch = name.as_bytes().starts_with(b"refs/heads/");
        // What a tag or a stash is built on is another thing than the tag or the stash.
        let to = if is_branch { histories.newest(&candidates)? } else { histories.first_whole(&candidates)? };
        match to {
            Some(to) if is_older && last == Some(to) && histories.is_whole(&to)? => search.write_older(name, to, plan),
            Some(to) if histories.is_whole(&to)? => search.write(name, &now, last.as_ref(), to, plan),
            Some(to) => search.leave(name, &now, to, last.as_ref(), plan),
            None if is_branch && search.keep_name(name, &now, last.as_ref(), histories, plan)? => {}
            None => {
                search.give_up(name, &now, last.as_ref(), plan);
                packed.remove(name);
                given_up.insert(name.clone());
            }
        }
    }
    if claims.packed.is_damaged {
        lost_tags(claims, reach, histories, &mut packed, plan)?;
    }
    if claims.packed.is_damaged || packed != claims.packed.entries {
        plan.put_locked(repo.common_dir.join("packed-refs"), Packed::encode(packed.iter()));
    }
    Ok(given_up)
}

impl Search<'_> {
    /// The files of refs are gone, and the reflog says another value than `packed-refs`.
    fn is_outdated(&self, name: &RefName, packed: &Oid) -> bool {
        let newest = self.claims.logs.get(name).and_then(Log::newest);
        self.hides_older(name) && newest.is_some_and(|newest| newest != *packed)
    }

    /// Does a reflog say its newest value?
    fn is_logged(&self, name: &RefName) -> bool {
        let logs = [Some(name), self.heads.of_branch(name)].into_iter().flatten();
        logs.filter_map(|name| self.claims.logs.get(name)).any(|log| log.newest().is_some())
    }

    /// The file of this ref may be among those that are lost.
    fn hides_older(&self, name: &RefName) -> bool {
        self.claims.lost_loose && !self.claims.loose.contains_key(name)
    }

    /// A reflog of a branch or of the stash, and no ref.
    fn is_lost(&self, name: &RefName) -> bool {
        let bytes = name.as_bytes();
        let counts = bytes.starts_with(b"refs/heads/") || bytes == b"refs/stash";
        let may_be_packed = self.claims.packed.is_damaged && bytes.starts_with(b"refs/");
        // An expired reflog is empty, and says that there was a branch.
        let has_value = self.claims.logs.get(name).is_some_and(|log| log.newest().is_some())
            || self.claims.packed.is_damaged && bytes.starts_with(b"refs/heads/");
        // A name that is, or has to be, a directory cannot have been a ref at the same time as the other.
        let is_in_the_way = in_the_way([name].into_iter(), self.claims.loose.keys()).is_some();
        (counts || may_be_packed) && has_value && !is_in_the_way
    }

    fn put(&self, name: &RefName, to: Oid, plan: &mut Plan) {
        let path = self.repo.common_dir.join(name.as_path());
        if self.claims.loose.get(name).is_some_and(|loose| !loose.is_file) {
            plan.set_name_aside(path.clone());
        }
        plan.put_locked(path, format!("{to}\n").into_bytes());
    }

    fn write(&self, name: &RefName, now: &Value, last: Option<&Oid>, to: Oid, plan: &mut Plan) {
        self.put(name, to, plan);
        let is_hidden = self.hides_older(name) && now.oid().is_some();
        let what = if is_hidden { format!("the file of {name} is missing") } else { wrong(name, now) };
        let repair = format!("it is {} again", short(&to));
        match last {
            Some(last) if *last == to => plan.found(what, repair),
            None => {
                let repair = format!("it gets {}, the value of its remote-tracking branch", short(&to));
                plan.lost(what, repair, format!("{name}: {}", was(None)));
            }
            Some(last) => {
                let repair = format!("it goes back to {}, its newest value that is whole", short(&to));
                plan.lost(what, repair, format!("{name} was {last}: that, or what it is built on, is missing"));
            }
        }
    }

    /// `packed-refs` has a value, and the file that is damaged was written after that.
    fn write_older(&self, name: &RefName, to: Oid, plan: &mut Plan) {
        self.put(name, to, plan);
        let repair = format!("it gets {}, which packed-refs says", short(&to));
        plan.lost(wrong(name, &Value::Broken), repair, format!("{name}: its value, if that was newer than {to}"));
    }

    /// There is a hole in its history.
    fn leave(&self, name: &RefName, now: &Value, to: Oid, last: Option<&Oid>, plan: &mut Plan) {
        let repair = if now.oid() == Some(&to) {
            "it stays"
        } else {
            self.put(name, to, plan);
            "it gets its newest value that can be read"
        };
        let before = if last == Some(&to) { String::new() } else { format!("{name}: {}; and ", was(last)) };
        let loss =
            format!("{before}a part of the history of {name}, which is at {to}: gc does not work until it is back");
        plan.lost(wrong(name, now), repair, loss);
    }

    /// Nothing of a branch is known: its name stays, at a commit that can be worked with. Where there is no such, it is left as it is;
    /// but for the branch of a HEAD, which goes on without commits (`false`).
    fn keep_name(
        &self,
        name: &RefName,
        now: &Value,
        last: Option<&Oid>,
        histories: &mut Histories,
        plan: &mut Plan,
    ) -> anyhow::Result<bool> {
        let means_it = self.heads.of_branch(name).is_some();
        let repair = match self.heads.newest(self.claims, self.unnamed, histories)? {
            Some(_) if self.has_no_base && means_it => return Ok(!self.claims.knows(name)),
            Some(_) if self.has_no_base => {
                let again = "once its file is away, `git branch NAME COMMIT` gives it one";
                format!("HEAD has no commit that it could get: it is left; {again}")
            }
            Some((commit, what)) => {
                self.put(name, commit, plan);
                format!("nothing whole is known of it: the name stays, at {what} ({})", short(&commit))
            }
            // A repository without any commit.
            None if means_it => return Ok(!self.claims.knows(name)),
            None => "nothing whole is known of it, nor of any commit: it is left as it is".to_owned(),
        };
        plan.lost(wrong(name, now), repair, format!("{name}: {}", was(last)));
        Ok(true)
    }

    /// Nothing whole is known: what names it goes to quarantine.
    fn give_up(&self, name: &RefName, now: &Value, last: Option<&Oid>, plan: &mut Plan) {
        if self.claims.loose.contains_key(name) {
            plan.set_name_aside(self.repo.common_dir.join(name.as_path()));
        }
        if self.claims.logs.contains_key(name) {
            // A new ref of that name would begin with it.
            plan.set_name_aside(log_path(&self.repo.common_dir, name));
        }
        let repair = if name.as_bytes().starts_with(b"refs/heads/") {
            "nothing whole is known of it: what names it goes to quarantine, and HEAD means it as one without commits"
        } else {
            "nothing whole is known of it: what names it goes to quarantine"
        };
        plan.lost(wrong(name, now), repair, format!("{name}: {}", was(last)));
    }
}

/// Are there several branches of which nothing whole is known? That of a HEAD counts also when nothing names it (any more): a rescue
/// that is killed and run again finds the same.
fn is_lost_many(claims: &Claims, heads: &Heads, histories: &mut Histories) -> anyhow::Result<bool> {
    let mut names = claims.branches();
    names.extend(heads.branches());
    let mut lost = 0;
    for name in names {
        let visible = claims.visible(name);
        let is_elsewhere = visible.oid().map(|oid| histories.is_elsewhere(oid)).transpose()?.unwrap_or_default();
        let is_symbolic = matches!(visible, Value::Symref(_));
        let candidates = claims.candidates(name, heads.of_branch(name));
        if !is_elsewhere && !is_symbolic && histories.newest(&candidates)?.is_none() {
            lost += 1;
        }
    }
    Ok(lost > 1)
}

fn was(last: Option<&Oid>) -> String {
    last.map_or_else(|| "nobody knows its value".to_owned(), |last| format!("it was {last}"))
}

/// What is wrong with a ref.
fn wrong(name: &RefName, now: &Value) -> String {
    match now {
        Value::Oid(oid) => format!("{name} is {}, of which objects are missing", short(oid)),
        Value::Absent => format!("{name} is missing"),
        _ => format!("{name} is empty or damaged"),
    }
}

/// Annotated tags say their names: those that no ref names any more were lost with `packed-refs`.
fn lost_tags(
    claims: &Claims,
    reach: &Reach,
    histories: &mut Histories,
    packed: &mut BTreeMap<RefName, Oid>,
    plan: &mut Plan,
) -> anyhow::Result<()> {
    let mut found = 0;
    for tag in &reach.dangling_tags {
        let content = histories.object(tag)?.unwrap_or_default();
        let name = content.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"tag "));
        let name = name.and_then(|name| RefName::parse(&[b"refs/tags/", name].concat()).ok());
        let Some(name) = name.filter(|name| claims.visible(name) == Value::Absent) else { continue };
        if histories.is_whole(tag)? {
            packed.insert(name, *tag);
            found += 1;
        }
    }
    let repair = format!("it is made again from what can be read of it, from reflogs, and from {found} tag objects");
    plan.lost("packed-refs is empty or damaged", repair, "tags, and refs without a reflog, that packed-refs alone had");
    Ok(())
}
