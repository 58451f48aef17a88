//! What was salvaged comes into the damaged repository, and what is corrupt in it goes.

use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use crate::fs::door::{self, Kind};
use crate::fs::named as fs;
use crate::rescue::plan::Plan;
use crate::rescue::salvage::Reach;
use crate::rescue::view::View;

/// Plans it. A file that is there already is replaced by its whole one.
pub(crate) fn adopt(view: &View, reach: &Reach, plan: &mut Plan) -> anyhow::Result<()> {
    let (from, to) = (view.own_objects(), view.objects.dir.clone());
    let mut dirs = door::entries(&from)?.unwrap_or_default();
    dirs.retain(|(name, kind)| *kind == Kind::Directory && name != "info");
    dirs.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (dir, _) in dirs {
        let mut files = door::entries(&from.join(&dir))?.unwrap_or_default();
        // An index after its pack, and what says whose pack it is: git finds a pack by that.
        files.sort_by(|(one, _), (other, _)| other.cmp(one));
        // Links lead to what is in the repository already.
        for (name, _) in files.into_iter().filter(|(_, kind)| *kind == Kind::File) {
            let is_object = name.to_str().is_some_and(|name| name.len() >= 38 && !name.contains('.'));
            let is_pack = [".promisor", ".pack", ".idx"].iter().any(|end| name.as_bytes().ends_with(end.as_bytes()));
            if is_object || is_pack && dir == "pack" {
                let content = fs::read(from.join(&dir).join(&name))?;
                plan.put_object(to.join(&dir).join(&name), content);
            }
        }
    }
    let gone: Vec<PathBuf> = view.objects.bad_files(reach.is_stale).filter(|path| !plan.puts_object(path)).collect();
    gone.into_iter().for_each(|path| plan.set_object_aside(path));
    view.objects.packs.iter().for_each(|pack| plan.keep(&pack.stem.with_extension("pack")));
    Ok(())
}
