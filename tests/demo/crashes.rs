//! What is left when strata is killed, has no room, may not write, or is not alone: a store that is whole, and the same
//! images.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::registry::Registry;
use crate::world::{User, World, images, run, text};

/// Kills in one run of the test: `just test-crash` asks for more.
const KILLS: &str = "STRATA_CRASHES";

/// The demo's stream at two times, each with lockfiles of its own, and the digests of its images.
struct Streams {
    world: World,
    digests: [Vec<String>; 2],
}

const TIMES: [[&str; 6]; 2] = [
    ["--lockfiles", "older", "--set", "snapshot=2025-02-03", "--set", "ose_snapshot=2025-02-03"],
    ["--lockfiles", "newer", "--set", "snapshot=2025-02-10", "--set", "ose_snapshot=2025-02-10"],
];

impl Streams {
    fn new(world: World) -> Self {
        let digests = TIMES.map(|time| {
            world.strata(&[&time[..], &["lock", "demo"]].concat());
            digests(&run(&mut build(&world, time)))
        });
        Self { world, digests }
    }

    fn fsck(&self) {
        let output = self.world.command(&["fsck"]).output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Sees that a build of each time gives the images it gave before.
    fn assert_same(&self) {
        for (time, expected) in TIMES.iter().zip(&self.digests) {
            assert_eq!(digests(&run(&mut build(&self.world, *time))), *expected);
        }
    }

    /// Sees that the image built last is pushed as it is.
    fn assert_pushed(&self, to: &str) {
        self.world.strata(&["push", "demo/node", to, "--attach", "pkglist"]);
        let inspect = ["inspect", "--tls-verify=false", "--format", "{{.Digest}}", to];
        assert_eq!(run(Command::new("skopeo").args(inspect)).trim(), self.digests[1][2]);
    }

    /// Sees that gc leaves nothing unfinished.
    fn assert_tidy(&self) {
        self.world.strata(&["gc"]);
        let store = self.world.path("store");
        for dir in ["tmp", "running"] {
            assert_eq!(fs::read_dir(store.join(dir)).unwrap().count(), 0, "{dir}");
        }
        let find = ["-path", "*/tree", "-prune", "-o", "-name", ".tmp*", "-print"];
        assert_eq!(run(Command::new("find").arg(&store).args(find)), "");
        self.fsck();
    }
}

fn build(world: &World, time: [&str; 6]) -> Command {
    world.command(&[&["--format", "json"], &time[..], &["build", "demo"]].concat())
}

fn digests(json: &str) -> Vec<String> {
    images(json).into_iter().map(|image| image.digest).collect()
}

/// Starts a command in a process group of its own.
fn start(mut command: Command) -> Child {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0).spawn().unwrap()
}

fn kill(child: &mut Child) {
    let group = Pid::from_child(child);
    // it may have ended before
    let _ = kill_process_group(group, Signal::KILL);
    child.wait().unwrap();
}

#[test]
fn a_kill_at_any_moment_loses_nothing() {
    let kills: u32 = std::env::var(KILLS).map_or(10, |kills| kills.parse().unwrap());
    let streams = Streams::new(World::new(User::Root));
    let mut random = ChaCha8Rng::seed_from_u64(5);
    let began = Instant::now();
    streams.world.strata(&["gc", "--all"]);
    run(&mut build(&streams.world, TIMES[0]));
    let whole = began.elapsed();
    let registry = Registry::new("crashes");
    let to = |repository: u32| format!("docker://{}/os-{repository}:1", registry.host());
    for kill_number in 0..kills {
        // gc and push take a small part of the time that a build takes
        let (command, part) = match random.gen_range(0..5) {
            0 => (streams.world.command(&["gc", "--all"]), 20),
            1 => (streams.world.command(&["gc", "--keep", "1", "--size", "0K"]), 20),
            2 => (
                streams.world.command(&["push", "demo/node", &to(kill_number / 5), "--attach", "pkglist"]),
                10,
            ),
            _ => (build(&streams.world, TIMES[random.gen_range(0..2)]), 1),
        };
        let most = whole / part;
        let mut child = start(command);
        std::thread::sleep(random.gen_range(Duration::ZERO..most));
        kill(&mut child);
        streams.fsck();
        if kill_number % 5 == 4 {
            streams.assert_same();
            streams.assert_pushed(&to(kill_number / 5));
            streams.assert_tidy();
            // pushes that come next have something to push
            if random.gen_range(0..2) == 0 {
                streams.world.strata(&["gc", "--all"]);
            }
        }
    }
}

/// What is in a directory under names that begin with a dot.
fn hidden(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with('.')).collect()
}

/// Kills a command as soon as something unfinished is beside the lockfiles; false if it was faster.
fn kill_in_writing(world: &World, args: &[&str], dir: &Path) -> bool {
    let mut child = start(world.command(args));
    while hidden(dir).is_empty() && child.try_wait().unwrap().is_none() {}
    kill(&mut child);
    !hidden(dir).is_empty()
}

#[test]
fn a_kill_while_a_lock_is_written_leaves_nothing_for_long() {
    let world = World::new(User::Root);
    world.strata(&["lock", "demo"]);
    world.build(&[]);
    let dir = world.path("lockfiles/demo");
    let path = dir.join(format!("node.{}.toml", std::env::consts::ARCH));
    let whole = fs::read_to_string(&path).unwrap();
    let line = |key: &str| whole.lines().find(|line| line.starts_with(key)).unwrap();
    let nothing = format!("manifest = \"sha256:{}\"", "0".repeat(64));
    // what a build adds again, and what locking makes anew
    let changed = [
        (&["build", "demo"], whole.replace(&format!("{}\n", line("parent-image")), "")),
        (&["lock", "demo"], whole.replace(line("manifest"), &nothing)),
    ];
    for (command, text) in changed {
        let mut times = 0;
        for _ in 0..6 {
            fs::write(&path, &text).unwrap();
            times += usize::from(kill_in_writing(&world, command, &dir));
            world.strata(command);
            world.strata(&["build", "demo"]);
            assert_eq!(hidden(&dir), [""; 0]);
            assert_eq!(fs::read_to_string(&path).unwrap(), whole);
        }
        assert!(times > 0, "no kill of {command:?} came in time");
    }
}

#[test]
fn builds_and_deletions_at_the_same_time_do_not_meet() {
    let streams = Streams::new(World::new(User::Root));
    streams.world.strata(&["gc", "--all"]);
    let mut builds = TIMES.map(|time| build(&streams.world, time).stdout(Stdio::piped()).spawn().unwrap());
    while builds.iter_mut().any(|build| build.try_wait().unwrap().is_none()) {
        streams.world.strata(&["gc", "--all", "--size", "0K"]);
    }
    for (build, expected) in builds.into_iter().zip(&streams.digests) {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(digests(&String::from_utf8(output.stdout).unwrap()), *expected);
    }
    streams.assert_same();
    streams.assert_tidy();
}

/// A file system in memory, mounted on a directory.
struct Memory(PathBuf);

impl Memory {
    fn new(dir: &Path, mib: u32) -> Self {
        fs::create_dir_all(dir).unwrap();
        let size = format!("size={mib}m");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "strata-test"]).arg(dir));
        Self(dir.to_owned())
    }

    fn remount(&self, option: &str) {
        run(Command::new("mount").args(["-o", &format!("remount,{option}")]).arg(&self.0));
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // lazily: a killed strata may hold it for a moment
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Sees a build fail, and its error say why, in one of these ways.
fn fails(world: &World, why: &[&str]) {
    let output = build(world, TIMES[0]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    let is_told = why.iter().any(|why| error.contains(why));
    assert!(is_told, "{error}");
}

#[test]
fn a_full_disk_and_one_that_cannot_be_written_are_told_and_cost_nothing() {
    let world = World::new(User::Root);
    let memory = Memory::new(&world.path("store"), 256);
    let streams = Streams::new(world);
    let world = &streams.world;
    world.strata(&["gc", "--all", "--size", "0K"]);
    for mib in [2, 6, 16] {
        memory.remount(&format!("size={mib}m"));
        // a script may be the first to whom it happens
        fails(world, &["No space left on device", "of what was free on the disk"]);
    }
    memory.remount("size=256m");
    streams.fsck();
    streams.assert_same();
    streams.assert_tidy();

    memory.remount("ro");
    fails(world, &["Read-only file system"]);
    // who only looks need not write
    let listed = world.strata(&["images"]);
    assert!(listed.contains("demo/node"), "{listed}");
    world.strata(&["show", "demo/node"]);
    memory.remount("rw");
    streams.assert_same();
}
