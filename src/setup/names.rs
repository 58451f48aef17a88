//! The hooks that we are, and the program that they call.

use anyhow::Context;
use camino::{Utf8Path, Utf8PathBuf};

use crate::util::text::{shell_quoted, shown};

/// The hooks that we are in every repository.
pub(crate) const NAMES: [&str; 2] = ["reference-transaction", "post-checkout"];

/// And in a bare one, which is there to be pushed to: up to git 2.53 nothing else is called before refs are locked.
pub(crate) const RECEIVING: &str = "pre-receive";

/// All that we may be.
pub(crate) const ALL_NAMES: [&str; 3] = [NAMES[0], NAMES[1], RECEIVING];

/// The oldest git that runs hooks which are set in its configuration.
pub(crate) const CONFIG_HOOKS: (u32, u32) = (2, 54);

/// A missing program must not veto: git would refuse every change of a ref.
pub(crate) fn command_lines(binary: &Utf8Path, name: &str) -> [String; 2] {
    let binary = shell_quoted(binary.as_str());
    [format!("test -x {binary} || exit 0"), format!("exec {binary} hook {name}")]
}

/// The path of this very program: what the hooks and the alias point to.
pub(crate) fn this_binary() -> anyhow::Result<Utf8PathBuf> {
    let exe = std::env::current_exe().context("cannot find the path of this program")?;
    let exe = Utf8PathBuf::from_path_buf(exe);
    exe.map_err(|path| anyhow::anyhow!("the path of this program is not UTF-8: {}", shown(&path)))
}
