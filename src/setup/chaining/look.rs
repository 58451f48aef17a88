//! What is wrong with our hooks in a directory, and what to do about it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::{fs, io};

use crate::setup::chaining::script::*;
use crate::setup::names::{ALL_NAMES, NAMES};
use crate::util::text::shown;

/// Is ours in front of the lines of the hook that was there?
pub(crate) fn is_in_front(directory: &Path, name: &str) -> bool {
    fs::symlink_metadata(with(&aside_directory(directory).join(name), WHOLE)).is_ok()
}

/// Does a hook manager work here that takes its places back whenever one of its hooks runs?
pub(crate) fn is_restless(directory: &Path) -> bool {
    ALL_NAMES.iter().any(|name| beginning(&directory.join(name)).contains("call_lefthook run"))
}

/// What is wrong with our hook in `directory`, and what to do.
pub(crate) fn problem(directory: &Path, name: &str) -> Option<String> {
    let path = directory.join(name);
    if fs::symlink_metadata(&path).is_err() {
        return Some(format!("the {name} hook is missing: run `jin-txn install`"));
    }
    let text = match try_beginning(&path) {
        Ok(text) => text,
        // A link that leads nowhere.
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Some(format!("the {name} hook cannot be read: {error}")),
    };
    let is_ours = is_ours_with(&path, || text.clone());
    if !is_ours && calls_us_with(directory, name, &text) {
        return None;
    }
    if !is_ours {
        let shown = shown(&path);
        return Some(format!("the {name} hook is not jin-txn's ({shown}): run `jin-txn install`, then both run"));
    }
    let program = fs::read_link(&path).ok().or_else(|| program(&text));
    if program.is_some_and(|program| !program.exists()) {
        return Some(format!("the {name} hook points to a jin-txn that is gone: run `jin-txn install`"));
    }
    let executable = fs::metadata(&path).is_ok_and(|m| m.mode() & 0o111 != 0);
    (!executable).then(|| format!("the {name} hook is not executable: run `jin-txn install`"))
}

/// Whose lines do not run because of our hook in `directory`, and what to do.
pub(crate) fn hindered(directory: &Path, name: &str) -> Option<String> {
    let hook = directory.join(name);
    if name == NAMES[0] && is_ours(&hook) && fs::read_link(&hook).is_ok() && others_add_lines(directory) {
        return Some(format!(
            "git-branchless cannot add its lines to the {name} hook, which is a link: run `jin-txn install`, \
             then `git branchless init`"
        ));
    }
    let aside = aside_directory(directory).join(name);
    if !runs_another(&hook) || added_to(&hook).is_none() {
        return None;
    }
    let (hook, aside) = (shown(&hook), shown(&aside));
    Some(if fold(directory, name).is_some() {
        format!("lines that were added to {hook} do not run: run `jin-txn install`")
    } else {
        format!("lines that were added to {hook} do not run: move them to {aside}")
    })
}

/// git-annex adds no line to a hook that is there already, and without its line its adjusted branches cannot be merged. Where its
/// hook has to go, as a command: a link to this program gives way to it first.
pub(crate) fn annex_hindered(directory: &Path) -> Option<String> {
    const NAME: &str = "post-checkout";
    const LINE: &str = "git annex smudge --update";
    let (hook, aside) = (directory.join(NAME), aside_directory(directory).join(NAME));
    let has_line =
        |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.is_file()) && beginning(path).contains(LINE);
    if !is_ours(&hook) || has_line(&hook) || has_line(&aside) {
        return None;
    }
    let is_link = fs::symlink_metadata(&hook).is_ok_and(|m| m.is_symlink());
    let behind = if runs_another(&hook) { shown(&aside) } else { shown(&hook) };
    let command = if is_link {
        format!("rm {behind} && printf '#!/bin/sh\\n{LINE}\\n' >{behind} && chmod +x {behind} && jin-txn install")
    } else {
        format!("echo '{LINE}' >>{behind}")
    };
    Some(format!("git-annex adds no line to the {NAME} hook, because ours is there: run `{command}`"))
}
