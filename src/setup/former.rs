//! What is recognized as ours without a note about it: settings of a template, or of an installation whose `.jin` is gone.

use crate::setup::settings::{File, Settings};
use crate::setup::{alias, configured, fsync};

/// Settings that only `install` makes, as far as they are in the file. Nothing, where `git txn` is not ours: then the others may
/// be the user's.
pub(crate) fn settings(file: &File<'_>) -> anyhow::Result<Settings> {
    let ours = |alias: &String| alias::is_ours(alias);
    let Some(txn) = file.get(alias::KEY)?.filter(ours) else { return Ok(Settings::default()) };
    let mut found = vec![(alias::KEY.to_owned(), txn)];
    found.extend(file.get(alias::RUN_KEY)?.filter(ours).map(|run| (alias::RUN_KEY.to_owned(), run)));
    for (key, value) in [("core.fsync", fsync::SETTING), ("core.lockfilePid", "true")] {
        if file.get(key)?.as_deref() == Some(value) {
            found.push((key.to_owned(), value.to_owned()));
        }
    }
    for key in configured::keys() {
        found.extend(file.get(&key)?.map(|value| (key, value)));
    }
    Ok(Settings::made(found))
}
