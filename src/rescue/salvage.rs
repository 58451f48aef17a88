//! Objects that can be had again: out of damaged packs, out of the worktree, out of the index.
//!
//! What is found is stored in the scratch repository, under the name that its content hashes to: what is not what is missing cannot
//! come in.
//!
//! git opens no pack whose end is cut. Of such a one it gets a copy with the end that its index says it has.
//!
//! Limit: a pack is read into memory, one at a time, up to 1 GiB. Filters are not run: a file that is stored otherwise than it is
//! checked out (but for line endings) is not recognised.

use std::collections::{BTreeSet, HashSet};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::fs::door::{self, Kind};
use crate::fs::{durable, named as fs};
use crate::git::cat_file::{Batch, present};
use crate::git::hash::Hash;
use crate::git::{Git, Oid, Plumbing, Repository};
use crate::process::redact;
use crate::rescue::Request;
use crate::rescue::claims::Claims;
use crate::rescue::index::{Index, Indexes};
use crate::rescue::objects::{Pack, PackState, ends_with_sum};
use crate::rescue::plan::Plan;
use crate::rescue::stage::Stage;
use crate::rescue::view::View;

/// So many objects of a damaged pack are given up before the rest of it is.
const MOST_UNREADABLE: usize = 2000;

/// So many loose objects are put into a pack that is kept.
const MOST_KEPT: usize = 200_000;

/// And so many bytes of them.
const MOST_BYTES_KEPT: u64 = 1 << 28;

/// No file of a worktree that is larger is looked at, in bytes.
const LARGEST: u64 = 1 << 30;

/// What is reachable, and what is not there.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    /// Objects that something names, and that are not there.
    pub(crate) missing: BTreeSet<Oid>,
    /// Some were missing at first: what git keeps beside packs to be faster may name those.
    pub(crate) is_stale: bool,
    /// Commits that nothing names.
    pub(crate) dangling_commits: Vec<Oid>,
    /// Annotated tags that nothing names.
    pub(crate) dangling_tags: Vec<Oid>,
}

/// Reads what can be read of damaged packs.
pub(crate) fn packs(view: &mut View, stage: &Stage, plan: &mut Plan) -> anyhow::Result<()> {
    for number in 0..view.objects.packs.len() {
        let pack = view.objects.packs[number].clone();
        let name = pack.stem.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match pack.state {
            PackState::Whole => {}
            PackState::NoPack => plan.found(format!("{name}.pack is missing"), "its index goes to quarantine"),
            PackState::NoIndex | PackState::Corrupt => {
                stage.begin(format!("reading what can be read of {name}.pack"));
                if index_again(view, &pack, &name)? {
                    view.objects.packs[number].state = PackState::NoIndex;
                    plan.found(format!("{name}.idx is missing or damaged"), "it is made again");
                } else {
                    view.objects.packs[number].state = PackState::Corrupt;
                    let before = view.own_loose()?;
                    unpack(view, &pack)?;
                    let mut had = view.own_loose()?;
                    had.retain(|oid| !before.contains(oid));
                    let repair =
                        format!("the {} objects that can be read are kept, the pack goes to quarantine", had.len());
                    plan.found(format!("{name}.pack is damaged"), repair);
                    if fs::symlink_metadata(pack.stem.with_extension("promisor")).is_ok() {
                        pack_promised(view, had)?;
                    }
                }
            }
        }
    }
    Ok(())
}

/// Makes the index of a pack again; `false` when the pack itself is damaged.
fn index_again(view: &View, pack: &Pack, name: &str) -> anyhow::Result<bool> {
    let (file, own) = (pack.stem.with_extension("pack"), view.own_objects().join("pack"));
    let index = own.join(format!("{name}.idx"));
    let made = Plumbing::IndexPack { pack: &file.to_string_lossy(), index: &index.to_string_lossy() };
    if !view.git.run(made)?.success {
        durable::remove_file(&index)?;
        return Ok(false);
    }
    door::place(&own.join(format!("{name}.pack")))?.symlink(&file)?;
    Ok(true)
}

/// Stores what can be read of a damaged pack. By its index each object is read by itself; without one the pack is read from its
/// beginning as far as that goes.
fn unpack(view: &View, pack: &Pack) -> anyhow::Result<()> {
    let names = fs::read(pack.stem.with_extension("idx")).map(|index| names_in(&index)).unwrap_or_default();
    if names.is_empty() {
        let content = fs::read(pack.stem.with_extension("pack"))?;
        return view.git.command(Plumbing::Unpack).stdin(content).run().map(|_| ());
    }
    let there = present(&view.git, &names)?.unwrap_or_default();
    let damaged = view.with_pack(pack)?;
    let (mut unreadable, mut batch) = (0, None);
    for oid in names.iter().filter(|oid| !there.contains(oid)) {
        let reader = match batch.take() {
            Some(reader) => reader,
            None => Batch::start(&damaged)?,
        };
        match batch.insert(reader).content(&oid.hex()) {
            Ok(content) => {
                store(view, oid, &content)?;
            }
            Err(_) if unreadable < MOST_UNREADABLE => {
                // git has died of it.
                (batch, unreadable) = (None, unreadable + 1);
            }
            Err(_) => break,
        }
    }
    Ok(())
}

/// What was had again of a pack from the server of a partial clone is a pack that says so: what is missing the server has.
fn pack_promised(view: &View, had: BTreeSet<Oid>) -> anyhow::Result<()> {
    let before = view.own_packs()?;
    pack(view, &view.git, had.iter().map(|oid| format!("{oid}\n")).collect())?;
    for made in view.own_packs()?.difference(&before) {
        durable::create_new(&made.with_extension("promisor"), b"")?;
    }
    had.iter().try_for_each(|oid| view.remove_loose(oid))
}

/// The names in the index of a pack; none when it is damaged.
fn names_in(index: &[u8]) -> Vec<Oid> {
    const HEADER: usize = 8;
    const FAN_OUT: usize = 256 * 4;
    let read = || {
        if !index.starts_with(b"\xfftOc\0\0\0\x02") {
            return None;
        }
        let count = index.get(HEADER + FAN_OUT - 4..HEADER + FAN_OUT)?;
        let count = usize::try_from(u32::from_be_bytes(count.try_into().ok()?)).ok()?;
        let [length] = [20, 32].into_iter().filter(|length| ends_with_sum(index, *length)).collect::<Vec<_>>()[..]
        else {
            return None;
        };
        let names = index.get(HEADER + FAN_OUT..(HEADER + FAN_OUT).checked_add(count.checked_mul(length)?)?)?;
        names.chunks_exact(length).map(Oid::from_bytes).collect::<Option<Vec<_>>>()
    };
    read().unwrap_or_default()
}

/// Stores an object, if this is its content.
fn store(view: &View, oid: &Oid, content: &[u8]) -> anyhow::Result<bool> {
    for kind in ["blob", "tree", "commit", "tag"] {
        let header = format!("{kind} {}\0", content.len());
        let mut sum = Hash::of(oid).start();
        sum.write_all(header.as_bytes())?;
        sum.write_all(content)?;
        if sum.finish() == *oid {
            view.add_loose(oid, header.as_bytes(), content)?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Commits that nothing names: one of them may be what a ref was that was lost.
pub(crate) fn name_dangling(reach: &Reach, plan: &mut Plan) {
    const SHOWN: usize = 10;
    if plan.loses() {
        let named = reach.dangling_commits.iter().take(SHOWN);
        plan.notes.extend(named.map(|oid| format!("nothing names commit {oid}: `git branch NAME {oid}` names it")));
    }
}

/// Finds out what is missing, and stores what of it can be had again.
pub(crate) fn salvage(
    repo: &Repository,
    view: &View,
    claims: &Claims,
    indexes: &Indexes,
    request: &Request,
    plan: &mut Plan,
) -> anyhow::Result<Reach> {
    request.stage.begin("following what refs, reflogs and indexes name");
    let mut roots = claims.values();
    roots.extend(indexes.objects());
    let mut reach = look(view, &roots)?;
    for path in &view.objects.absent_alternates {
        let what = format!("objects/info/alternates names {}, which is not there", crate::util::text::shown(path));
        plan.lost(what, "nothing: put it there again", "the objects in it, until it is there again");
    }
    for path in &view.objects.bad_loose {
        plan.found(format!("{} is no object", repo.relative(path)), "it goes to quarantine");
    }
    for path in &view.objects.bad_caches {
        plan.found(format!("{} is damaged", repo.relative(path)), "it goes to quarantine: git makes it again");
    }
    if reach.missing.is_empty() || !view.objects.absent_alternates.is_empty() {
        return Ok(reach);
    }
    let before = reach.missing.len();
    request.stage.begin("looking for missing objects in the worktree");
    for index in indexes.iter() {
        let mut wanted = Wanted { view, missing: &reach.missing, found: HashSet::new() };
        wanted.look_below(&index.worktree, 0)?;
        trees_of(view, index)?;
    }
    reach = Reach { is_stale: true, ..look(view, &roots)? };
    let found = before.saturating_sub(reach.missing.len());
    if found > 0 {
        let repair = "the files and the index of the worktree have them";
        plan.found(format!("{found} objects are missing or damaged"), repair);
    }
    let before = reach.missing.len();
    match request.fetch.as_deref() {
        _ if before == 0 => {}
        Some(url) => {
            request.stage.begin("fetching missing objects");
            fetch(view, url, &reach.missing)?;
            reach = Reach { is_stale: true, ..look(view, &roots)? };
            let found = before.saturating_sub(reach.missing.len());
            plan.found(
                format!("{before} objects are missing"),
                format!("{found} of them come from {}", redact::text(url)),
            );
        }
        None => plan.notes.push(format!(
            "{before} objects are missing: where another repository has them, `jin-txn rescue --fetch URL` gets them"
        )),
    }
    Ok(reach)
}

/// Fetches what is missing from another repository. It comes into a repository of its own; from there only what is missing, and what
/// that reaches, is taken.
fn fetch(view: &View, url: &str, missing: &BTreeSet<Oid>) -> anyhow::Result<()> {
    let git = view.another("fetched")?;
    let ran = git.command(Plumbing::Fetch(url)).for_fetch().run()?;
    anyhow::ensure!(ran.success, "cannot fetch from {}: {}", redact::text(url), redact::text(&ran.stderr));
    let wanted: Vec<Oid> = missing.iter().copied().collect();
    let there = present(&git, &wanted)?.unwrap_or_default();
    let lines: String = there.iter().map(|oid| format!("{oid}\n")).collect();
    let listed = git.command(Plumbing::Reachable).stdin(lines).run()?;
    let reached = listed.split(b'\n').filter_map(|line| Oid::parse(line.split(|byte| *byte == b' ').next()?));
    let reached: BTreeSet<Oid> = reached.chain(there).collect();
    let reached: Vec<Oid> = reached.into_iter().collect();
    let known = present(&view.git, &reached)?.unwrap_or_default();
    let new: String = reached.iter().filter(|oid| !known.contains(oid)).map(|oid| format!("{oid}\n")).collect();
    pack(view, &git, new)
}

/// Makes a pack of these objects, one a line, among the scratch repository's own.
fn pack(view: &View, from: &Git, names: String) -> anyhow::Result<()> {
    if !names.is_empty() {
        let base = view.own_objects().join("pack/pack");
        from.command(Plumbing::Pack(&base.to_string_lossy())).stdin(names).run_ok()?;
    }
    Ok(())
}

/// Loose objects that nothing names go after two weeks. What was lost may be among them: a pack of all of them is kept.
pub(crate) fn keep_loose(view: &View, plan: &mut Plan) -> anyhow::Result<()> {
    if !plan.loses() {
        return Ok(());
    }
    let names = view.loose_names()?;
    if names.len() > MOST_KEPT || view.loose_size()? > MOST_BYTES_KEPT {
        plan.notes.push(
            "there are too many loose objects to keep them all from gc: no `git gc` before what is lost was looked for"
                .to_owned(),
        );
        return Ok(());
    }
    pack(view, &view.git, names.iter().map(|name| format!("{name}\n")).collect())
}

/// Asks git what the roots reach.
fn look(view: &View, roots: &BTreeSet<Oid>) -> anyhow::Result<Reach> {
    let all: Vec<Oid> = roots.iter().copied().collect();
    let there = present(&view.git, &all)?.unwrap_or_default();
    view.set_roots(roots.iter().filter(|oid| there.contains(oid)).copied())?;
    let mut reach = Reach::default();
    reach.missing.extend(all.into_iter().filter(|oid| !there.contains(oid)));
    let ran = view.git.run(Plumbing::Connectivity)?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let oid = |word: &str| Oid::parse(word.as_bytes());
        match words[..] {
            ["missing", _, name] => reach.missing.extend(oid(name)),
            ["dangling", "commit", name] => reach.dangling_commits.extend(oid(name)),
            ["dangling", "tag", name] => reach.dangling_tags.extend(oid(name)),
            ["to", _, name] => reach.missing.extend(oid(name)),
            _ => {}
        }
    }
    // git knows the empty tree and the empty file without having them.
    reach.missing.retain(|oid| {
        let hash = Hash::of(oid);
        let mut tree = hash.start();
        tree.update(b"tree 0\0");
        *oid != tree.finish() && *oid != hash.blob(b"")
    });
    Ok(reach)
}

/// Looks for missing blobs among files.
struct Wanted<'w> {
    view: &'w View,
    missing: &'w BTreeSet<Oid>,
    found: HashSet<Oid>,
}

impl Wanted<'_> {
    /// A worktree is not deeper than paths may be long.
    const DEEPEST: usize = 1000;

    fn look_below(&mut self, dir: &Path, depth: usize) -> anyhow::Result<()> {
        for (name, kind) in door::entries(dir)?.unwrap_or_default() {
            let path = dir.join(&name);
            match kind {
                Kind::Directory if name != ".git" && depth < Self::DEEPEST => self.look_below(&path, depth + 1)?,
                Kind::File => self.look_at(&path)?,
                Kind::Symlink => {
                    if let Ok(target) = fs::read_link(&path) {
                        self.offer(target.as_os_str().as_bytes())?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn look_at(&mut self, path: &Path) -> anyhow::Result<()> {
        // What may not be read, or is gone by now, has nothing for us.
        let Ok(content) = durable::read_own(path, LARGEST) else { return Ok(()) };
        if !self.offer(&content)? && content.windows(2).any(|pair| pair == b"\r\n") {
            self.offer(&without_carriage_returns(&content))?;
        }
        Ok(())
    }

    /// Stores the content, if it is that of a missing blob.
    fn offer(&mut self, content: &[u8]) -> anyhow::Result<bool> {
        let Some(hash) = self.missing.first().map(Hash::of) else { return Ok(false) };
        let oid = hash.blob(content);
        Ok(self.missing.contains(&oid) && (!self.found.insert(oid) || store(self.view, &oid, content)?))
    }
}

/// As git stores text.
fn without_carriage_returns(content: &[u8]) -> Vec<u8> {
    let is_end = |at: usize| content[at] == b'\r' && content.get(at + 1) == Some(&b'\n');
    (0..content.len()).filter(|at| !is_end(*at)).map(|at| content[at]).collect()
}

/// Makes the trees that an index stands for, as far as its blobs are there. A conflict stands for none.
fn trees_of(view: &View, index: &Index) -> anyhow::Result<()> {
    let mut input = Vec::new();
    for entry in index.entries().iter().filter(|entry| !entry.intent_to_add && entry.stage == 0) {
        input.extend_from_slice(format!("{:o} {} 0\t", entry.mode, entry.oid).as_bytes());
        input.extend_from_slice(&entry.path);
        input.push(0);
    }
    let ours = view.file("index");
    durable::remove_file(&ours)?;
    if !input.is_empty() && view.git.command(Plumbing::FillIndex).index(&ours).stdin(input).run()?.success {
        // Where blobs are missing it makes none.
        view.git.command(Plumbing::WriteTree).index(&ours).run()?;
    }
    Ok(())
}
