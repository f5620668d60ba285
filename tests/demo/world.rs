//! A place to run strata in: manifests, repositories, lockfiles and store, and a user to run it as.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::demo_repos;

/// Who runs strata.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum User {
    Root,
    /// `stratatest`, who has subordinate ids and no other rights (justw makes the account).
    Ordinary,
}

/// A directory with everything a run of strata reads and writes.
pub struct World {
    dir: PathBuf,
    user: User,
    _guard: Option<TempDir>,
}

/// An image as `strata build --format json` reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub layer: String,
    pub reference: String,
    pub digest: String,
    pub version: String,
    pub reused: bool,
    pub kept: u64,
}

impl World {
    /// The demo stream, not yet locked; deleted when dropped.
    pub fn new(user: User) -> Self {
        // not below the checkout, which the ordinary user may not be able to reach
        let guard = tempfile::Builder::new().prefix("strata-demo-").tempdir_in("/var/tmp").unwrap();
        fs::set_permissions(guard.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self { dir: guard.path().to_owned(), user, _guard: Some(guard) };
        world.fill();
        world
    }

    /// The demo stream, locked and built by root; made once, for tests that only read it. What strata said of the
    /// build is in `build.json`.
    pub fn built() -> &'static (Self, Vec<Image>) {
        static BUILT: OnceLock<(World, Vec<Image>)> = OnceLock::new();
        BUILT.get_or_init(|| {
            let world = World { dir: scratch("built"), user: User::Root, _guard: None };
            world.fill();
            world.strata(&["lock", "demo"]);
            let json = world.strata(BUILD);
            fs::write(world.path("build.json"), &json).unwrap();
            (world, images(&json))
        })
    }

    fn fill(&self) {
        let source = Path::new(env!("CARGO_MANIFEST_DIR"));
        copy(&source.join("manifests"), &self.path("manifests"));
        copy(repositories(), &self.path("target/demo"));
        copy(Path::new(env!("CARGO_BIN_EXE_strata")), &self.path("strata"));
        if self.user == User::Ordinary {
            run(Command::new("chown").args(["-R", "stratatest:"]).arg(&self.dir));
        }
    }

    pub fn path(&self, relative: &str) -> PathBuf {
        self.dir.join(relative)
    }

    /// strata with the arguments, from this directory.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.user {
            User::Root => Command::new(self.path("strata")),
            User::Ordinary => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=stratatest", "--regid=stratatest", "--clear-groups"]);
                command.args(["--"]).arg(self.path("strata"));
                command
            }
        };
        command.args(args).current_dir(&self.dir).env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("HOME", &self.dir).env("STRATA_STORE", self.path("store"));
        command
    }

    /// Runs strata, which must succeed; gives its standard output.
    pub fn strata(&self, args: &[&str]) -> String {
        run(&mut self.command(args))
    }

    /// Runs strata, which must fail with `status`; gives its standard error.
    pub fn refused(&self, args: &[&str], status: i32) -> String {
        let output = self.command(args).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Builds the demo stream with extra arguments.
    pub fn build(&self, args: &[&str]) -> Vec<Image> {
        images(&self.strata(&[BUILD, args].concat()))
    }

    /// `skopeo`'s name of an image in the store.
    pub fn skopeo(&self, image: &Image) -> String {
        format!("oci:{}:{}", self.path("store/images").display(), image.reference)
    }

    /// The rootfs of the node image as umoci unpacks it; made once.
    pub fn unpacked_node() -> &'static Path {
        static UNPACKED: OnceLock<PathBuf> = OnceLock::new();
        UNPACKED.get_or_init(|| {
            let (world, images) = World::built();
            unpack(&world.skopeo(&images[2]), &scratch("unpacked-node"))
        })
    }
}

const BUILD: &[&str] = &["--format", "json", "build", "demo"];

pub fn images(json: &str) -> Vec<Image> {
    let built: Value = serde_json::from_str(json).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let image = |built: &Value| Image {
        layer: text(&built["layer"]),
        reference: text(&built["reference"]),
        digest: text(&built["digest"]),
        version: text(&built["version"]),
        reused: built["reused"].as_bool().unwrap(),
        kept: built["kept"].as_u64().unwrap(),
    };
    built.as_array().unwrap().iter().map(image).collect()
}

/// Unpacks an image into a new directory; gives its rootfs.
pub fn unpack(image: &str, dir: &Path) -> PathBuf {
    fs::create_dir_all(dir).unwrap();
    let layout = dir.join("layout");
    run(Command::new("skopeo")
        .args(["copy", "--quiet", image])
        .arg(format!("oci:{}:image", layout.display())));
    let image = format!("{}:image", layout.display());
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(dir.join("bundle")));
    dir.join("bundle/rootfs")
}

/// An empty directory that stays after the tests, for whoever wants to look.
pub fn scratch(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// The demo's repositories, made once for all tests.
pub fn repositories() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let dir = scratch("demo-repos");
        demo_repos::generate(&dir).unwrap();
        dir
    })
}

/// The digests of the packages of the demo's older repositories, by the names of their files, as sha256sum has them.
pub fn package_digests() -> BTreeMap<String, String> {
    let find = ["-name", "*.rpm", "-exec", "sha256sum", "{}", "+"];
    let said = run(Command::new("find").arg(repositories().join("2025-02-03")).args(find));
    let lines = said.lines().map(|line| line.split_once("  ").unwrap());
    lines.map(|(digest, path)| (path.rsplit('/').next().unwrap().to_owned(), digest.to_owned())).collect()
}

/// Runs a command, which must succeed; gives its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?} failed: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

pub fn text(output: &Output) -> String {
    format!(
        "{}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    run(Command::new("cp").arg("-R").arg(from).arg(to));
}
