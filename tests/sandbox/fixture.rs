//! A rootfs with a shell, and short ways to use it.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use strata::sandbox::{Command, Outcome, Sandbox};
use tempfile::TempDir;

/// The built program.
pub fn strata() -> PathBuf {
    std::env::var_os("STRATA_TEST_EXE").map_or(env!("CARGO_BIN_EXE_strata").into(), PathBuf::from)
}

pub fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// A rootfs with busybox (static, from the system's package) as every command.
pub struct Fixture {
    dir: TempDir,
    pub sandbox: Sandbox,
}

impl Fixture {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let rootfs = dir.path().join("rootfs");
        for name in ["usr/bin", "etc", "proc", "dev", "run", "tmp", "var/tmp"] {
            fs::create_dir_all(rootfs.join(name)).unwrap();
        }
        symlink("usr/bin", rootfs.join("bin")).unwrap();
        fs::copy("/usr/bin/busybox", rootfs.join("usr/bin/busybox")).expect("busybox-static is installed");
        for applet in [
            "sh", "cat", "chmod", "chown", "chroot", "dd", "env", "head", "hostname", "id", "ls", "mkdir",
            "mknod", "mount", "nc", "setsid", "sleep", "stat", "test", "touch", "true", "umount", "unshare",
            "yes",
        ] {
            symlink("busybox", rootfs.join("usr/bin").join(applet)).unwrap();
        }
        fs::write(
            rootfs.join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nada:x:10:20:Ada:/home/ada:/bin/sh\n",
        )
        .unwrap();
        fs::write(rootfs.join("etc/group"), "root:x:0:\nwheel:x:20:root,ada\n").unwrap();
        Self { dir, sandbox: Sandbox { rootfs, epoch: 1_739_145_600 } }
    }

    /// An empty directory beside the rootfs.
    pub fn scratch(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).unwrap();
        path
    }

    /// A path in the rootfs, as the host sees it.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.sandbox.rootfs.join(inside.trim_start_matches('/'))
    }

    pub fn run(&self, command: &Command) -> Outcome {
        self.sandbox.run(command).unwrap()
    }

    /// Runs shell code, which must succeed; its output.
    pub fn sh(&self, code: &str) -> String {
        let outcome = self.run(&shell(code));
        assert_eq!(outcome.status, 0, "{code}\n{}", outcome.output);
        outcome.output
    }
}

pub fn shell(code: &str) -> Command {
    Command { argv: vec!["/bin/sh".into()], script: Some((1, code.into())), ..Command::default() }
}
