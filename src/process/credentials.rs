//! Whose processes count: those whose credentials could write to the repository.
//!
//! A name proves nothing: anybody may run something called `git`, in namespaces of his own where his processes hide what they
//! do and are root. What a process may write is up to the kernel, and `/proc/PID/status` says as whom it acts, in the numbers
//! of our own user namespace. A process counts when it is root, or the owner of the directory, or we; when its group, or
//! everybody, may write there; or when it may overrule permissions in a user namespace that the owner is part of.
//!
//! Limit: whoever was somebody else when it made a file, and has dropped those rights since, does not count.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::fs::durable::is_local_disk;

/// What the kernel shows for a user who has no number in our user namespace.
const UNMAPPED: u32 = 65534;

/// `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER`, `CAP_SETGID` and `CAP_SETUID`: each leads to write access.
const OVERRULING: u64 = 1 | 1 << 1 | 1 << 3 | 1 << 6 | 1 << 7;

/// Who may write to a directory.
#[derive(Debug, Clone)]
pub(crate) struct Writers {
    device: (u32, u32),
    owner: u32,
    group: u32,
    group_writes: bool,
    everybody: bool,
}

/// Where a repository lies: what is asked of it when the owner of a transaction is looked for.
#[derive(Debug, Clone)]
pub struct Location {
    /// The state directory.
    pub(crate) directory: PathBuf,
    /// Can only one machine have its file system mounted?
    pub(crate) local_disk: bool,
}

impl Location {
    /// The location of the state directory `directory`.
    pub(crate) fn of(directory: &Path) -> Location {
        Location { directory: directory.to_owned(), local_disk: is_local_disk(directory) }
    }

    /// Whose processes count there.
    pub(crate) fn writers(&self) -> Writers {
        Writers::of(&self.directory)
    }
}

/// Of an error in `/proc/PID`: does it say that there is no such process?
pub(crate) fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// As whom a process acts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Credentials {
    /// Real, effective, saved, and of the file system.
    uids: Vec<u32>,
    gids: Vec<u32>,
    capabilities: u64,
}

impl Credentials {
    fn of(pid: u32) -> io::Result<Credentials> {
        let path = format!("/proc/{pid}/status");
        let status = fs::read(&path)?;
        Self::parse(&String::from_utf8_lossy(&status))
            .ok_or_else(|| io::Error::other(format!("{path} does not say as whom the process acts")))
    }

    fn parse(status: &str) -> Option<Credentials> {
        let line = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let numbers = |name| line(name)?.split_ascii_whitespace().map(|n| n.parse().ok()).collect::<Option<Vec<u32>>>();
        let (uids, mut gids) = (numbers("Uid:")?, numbers("Gid:")?);
        gids.extend(numbers("Groups:")?);
        let capabilities = u64::from_str_radix(line("CapEff:")?.trim(), 16).ok()?;
        Some(Credentials { uids, gids, capabilities })
    }
}

impl Writers {
    /// Of a directory; of one that cannot be looked at, everybody.
    pub(crate) fn of(directory: &Path) -> Writers {
        let Ok(found) = fs::metadata(directory) else {
            return Writers { device: (0, 0), owner: 0, group: 0, group_writes: true, everybody: true };
        };
        // An access control list may name anybody; what it allows at most is the mode of the group.
        let mut list = [0; 0];
        let size = rustix::fs::getxattr(directory, "system.posix_acl_access", &mut list);
        let (group_writes, others_write) = (found.mode() & 0o020 != 0, found.mode() & 0o002 != 0);
        Writers {
            device: (rustix::fs::major(found.dev()), rustix::fs::minor(found.dev())),
            owner: found.uid(),
            group: found.gid(),
            group_writes,
            everybody: others_write || (group_writes && size.is_ok_and(|size| size > 0)),
        }
    }

    /// Could this process write there? Not when it is gone; when that is unknown it could.
    pub(crate) fn include(&self, pid: u32) -> bool {
        if self.everybody {
            return true;
        }
        match Credentials::of(pid) {
            Ok(credentials) => self.allow(&credentials) || self.are_overruled_by(pid, &credentials),
            Err(error) => !is_gone(&error),
        }
    }

    /// Could this process certainly not write there, whatever it is named and wherever it runs?
    pub(crate) fn exclude(&self, pid: u32) -> bool {
        !self.include(pid) && !self.may_be_mapped_to(pid)
    }

    fn allow(&self, credentials: &Credentials) -> bool {
        let myself = rustix::process::geteuid().as_raw();
        credentials.uids.iter().any(|uid| [0, self.owner, myself].contains(uid))
            || (self.group_writes && credentials.gids.contains(&self.group))
            // Whoever has no number here may be the root of the machine.
            || (credentials.uids.contains(&UNMAPPED) && !Mapping::of("self").is_ok_and(|ours| ours.has(UNMAPPED)))
    }

    /// May the process overrule permissions where the owner is known? In a user namespace of a stranger he is not.
    fn are_overruled_by(&self, pid: u32, credentials: &Credentials) -> bool {
        if credentials.capabilities & OVERRULING == 0 {
            return false;
        }
        match (Mapping::of(&pid.to_string()), Mapping::of("self")) {
            // Our own namespace is not shown in its own numbers.
            (Ok(theirs), Ok(ours)) => theirs == ours || theirs.has(self.owner),
            (Err(error), _) => !is_gone(&error),
            _ => true,
        }
    }

    /// Could this process, which may not write there, act as another user on a mount of its own that maps users (`idmapped`)?
    /// Only root makes such mounts, for containers.
    pub(crate) fn may_be_mapped_to(&self, pid: u32) -> bool {
        let mounts = |pid: &str| fs::metadata(format!("/proc/{pid}/ns/mnt")).map(|found| found.ino());
        if let (Ok(theirs), Ok(ours)) = (mounts(&pid.to_string()), mounts("self"))
            && theirs == ours
        {
            return false;
        }
        match fs::read(format!("/proc/{pid}/mountinfo")) {
            Ok(text) => String::from_utf8_lossy(&text).lines().any(|mount| self.is_mapped_on(mount)),
            Err(error) => !is_gone(&error) && error.kind() != io::ErrorKind::PermissionDenied,
        }
    }

    /// A line of `mountinfo`: number, parent, device, root, mount point, options.
    fn is_mapped_on(&self, mount: &str) -> bool {
        let mut fields = mount.split(' ');
        let device = format!("{}:{}", self.device.0, self.device.1);
        let is_here = fields.nth(2).is_some_and(|found| found == device);
        // btrfs shows other numbers for a subvolume than for its mount.
        (is_here || mount.contains(" - btrfs ")) && fields.nth(2).is_some_and(|options| options.contains("idmapped"))
    }
}

/// The users of a user namespace, in the numbers of ours: ranges of first and count.
#[derive(Debug, PartialEq, Eq)]
struct Mapping(Vec<(u32, u32)>);

impl Mapping {
    fn of(pid: &str) -> io::Result<Mapping> {
        Ok(Mapping::parse(&fs::read_to_string(format!("/proc/{pid}/uid_map"))?))
    }

    fn parse(text: &str) -> Mapping {
        let range = |line: &str| {
            let mut numbers = line.split_ascii_whitespace().skip(1).map(str::parse);
            Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
        };
        Mapping(text.lines().filter_map(range).collect())
    }

    fn has(&self, uid: u32) -> bool {
        self.0.iter().any(|(first, count)| uid.checked_sub(*first).is_some_and(|nth| nth < *count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(uid: u32, gid: u32, groups: &str, capabilities: &str) -> Credentials {
        let text = format!("Name:\tgit\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\nGid:\t{gid}\t{gid}\t{gid}\t{gid}\n");
        Credentials::parse(&format!("{text}Groups:\t{groups} \nCapEff:\t{capabilities}\n")).unwrap()
    }

    #[test]
    fn whoever_could_write_counts_and_nobody_else() {
        let dir = |group_writes| Writers { device: (8, 1), owner: 1000, group: 50, group_writes, everybody: false };
        for (name, credentials, group_writes, counts) in [
            ("the owner", status(1000, 1, "", "0"), false, true),
            ("root", status(0, 0, "", "0"), false, true),
            ("another user", status(1001, 1, "50", "0"), false, false),
            ("a member of a group that may not write", status(1001, 50, "", "0"), false, false),
            ("a member of the group by default", status(1001, 50, "1", "0"), true, true),
            ("a member of the group", status(1001, 1, "7 50", "0"), true, true),
            ("another user of a shared repository", status(1001, 1, "7", "0"), true, false),
        ] {
            assert_eq!(dir(group_writes).allow(&credentials), counts, "{name}");
        }
    }

    #[test]
    fn a_mount_that_maps_users_is_told_by_its_options() {
        let dir = Writers { device: (8, 1), owner: 1000, group: 50, group_writes: false, everybody: false };
        for (mount, is_mapped) in [
            ("22 27 8:1 / /srv rw,relatime,idmapped shared:1 - ext4 /dev/sda1 rw", true),
            ("22 27 8:1 / /srv rw,relatime shared:1 - ext4 /dev/sda1 rw", false),
            ("22 27 8:2 / /srv rw,relatime,idmapped - ext4 /dev/sda2 rw", false),
            ("22 27 8:1 / /idmapped rw - ext4 /dev/sda1 rw", false),
        ] {
            assert_eq!(dir.is_mapped_on(mount), is_mapped, "{mount}");
        }
    }

    #[test]
    fn a_mapping_has_the_users_of_its_ranges() {
        let mapping = Mapping::parse("         0       1000          1\n         1     100000      65536\n");
        for (uid, has) in
            [(1000, true), (999, false), (1001, false), (100_000, true), (165_535, true), (165_536, false)]
        {
            assert_eq!(mapping.has(uid), has, "{uid}");
        }
        assert!(Mapping::parse("0 0 4294967295\n").has(UNMAPPED), "the namespace of the machine has everybody");
    }
}
