//! What a git of ours gets of our environment, and what is switched off in it.

use crate::util::env::{REVERSES, WITHIN};

/// The variables that tie git to a repository (`git rev-parse --local-env-vars`), and those that change what a ref update
/// does.
pub(super) const REPOSITORY: [&str; 19] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_CONFIG_COUNT",
    "GIT_CONFIG_PARAMETERS",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_QUARANTINE_PATH",
    "GIT_REFLOG_ACTION",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// Those of them that add to the configuration: `git -c`, and whoever sets them.
pub(crate) const CONFIGURATION: [&str; 2] = ["GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS"];

/// These change what our pathspecs mean.
pub(super) const PATHSPECS: [&str; 4] =
    ["GIT_GLOB_PATHSPECS", "GIT_ICASE_PATHSPECS", "GIT_LITERAL_PATHSPECS", "GIT_NOGLOB_PATHSPECS"];

/// What a hook of ours would take for its own.
pub(super) const OURS: [&str; 3] = ["JIN_TXN", WITHIN, REVERSES];

pub(super) const NO_REPLACE_OBJECTS: &str = "GIT_NO_REPLACE_OBJECTS";

/// What is switched off in the gits that work for us, by variables.
pub(super) const OFF: [(&str, &str); 9] = [
    ("JIN_TXN", "off"),
    (NO_REPLACE_OBJECTS, "1"),
    ("GIT_NO_LAZY_FETCH", "1"),
    // Before 2.45 git fetches what is missing whatever the variable above says.
    ("GIT_ALLOW_PROTOCOL", "none"),
    ("GIT_TERMINAL_PROMPT", "0"),
    ("GIT_ASKPASS", ""),
    ("SSH_ASKPASS", ""),
    ("GIT_PAGER", "cat"),
    ("GIT_OPTIONAL_LOCKS", "0"),
];

/// The same by configuration. A daemon would outlive us and inherit our locks.
pub(super) const OFF_IN_CONFIG: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.untrackedCache", "keep"),
    ("core.splitIndex", "false"),
    ("core.askPass", ""),
    ("core.editor", "false"),
    ("core.pager", "cat"),
    ("core.sshCommand", "false"),
    ("credential.helper", ""),
    ("gpg.program", "false"),
    ("log.showSignature", "false"),
    // Otherwise git takes a file that a sparse checkout keeps out for one of the others as soon as it is there.
    ("sparse.expectFilesOutsideOfPatterns", "true"),
];

/// What a fetch gets: no transport that runs a program which the URL names.
pub(super) const FETCH: [(&str, &str); 2] = [("JIN_TXN", "off"), ("GIT_ALLOW_PROTOCOL", "https:ssh:file")];

/// The same by configuration.
pub(super) const FETCH_CONFIG: [(&str, &str); 3] =
    [("core.hooksPath", "/dev/null"), ("gc.auto", "0"), ("maintenance.auto", "false")];
