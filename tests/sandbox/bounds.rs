//! Scripts that use too much: killed, and the error says what it was. Every bomb here is a finite one, which a
//! machine survives without any bound.

use std::fs;
use std::path::Path;
use std::process;
use std::time::{Duration, Instant};

use rustix::mount::MountFlags;
use strata::sandbox::{Bounds, Command};

use crate::Check;
use crate::fixture::{Fixture, shell};

pub const CHECKS: &[Check] = &[
    ("endless_scripts_end", endless_scripts_end),
    ("fork_bombs_are_defused", fork_bombs_are_defused),
    ("memory_is_bounded", memory_is_bounded),
    ("disk_is_bounded", disk_is_bounded),
    ("output_is_bounded", output_is_bounded),
    ("first_to_go_and_no_core", first_to_go_and_no_core),
];

/// Runs a script that exceeds `bounds`, which must be told with `expected`; nothing of it is left.
fn exceeds(fixture: &Fixture, bounds: Bounds, code: &str, expected: &str) {
    let mark = format!("strata-bomb-{}", process::id());
    let code = code.replace("MARK", &mark);
    let began = Instant::now();
    let error = fixture.sandbox.run(&Command { bounds, ..shell(&code) }).expect_err(&code);
    assert!(format!("{error:#}").contains(expected), "{code}: {error:#}");
    assert!(began.elapsed() < Duration::from_secs(20), "{code}: {:?}", began.elapsed());
    let commands = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
    let alive = commands.filter(|file| fs::read_to_string(file).is_ok_and(|line| line.contains(&mark)));
    assert_eq!(alive.count(), 0, "{code}");
    // and the next one is none the worse for it
    assert_eq!(fixture.sh("echo well"), "well\n");
}

fn endless_scripts_end() {
    let fixture = Fixture::new();
    let bounds = Bounds { time: Duration::from_secs(1), ..Bounds::default() };
    for code in [
        "echo half; sleep 30",
        "exec sh -c 'exec >/dev/null 2>&1 </dev/null; sleep 30' MARK",
        "trap '' TERM INT HUP; n=0; while test $n -lt 1000000000; do n=$((n + 1)); done",
        "echo half; kill -STOP $$; sleep 30",
    ] {
        exceeds(&fixture, bounds.clone(), code, "killed, because it ran longer than 1 s");
    }
    let error = fixture.sandbox.run(&Command { bounds, ..shell("echo half; sleep 30") }).unwrap_err();
    assert!(error.root_cause().to_string() == "half", "what it said last is there: {error:#}");
}

fn fork_bombs_are_defused() {
    let fixture = Fixture::new();
    let bounds = Bounds { processes: 200, ..Bounds::default() };
    let doubling =
        "bomb() { test $1 -gt 11 || { bomb $(($1 + 1)) & bomb $(($1 + 1)) & }; sleep 30; }; bomb 0";
    let many = "n=0; while test $n -lt 2000; do sh -c 'sleep 30' MARK & n=$((n + 1)); done; wait";
    // a namespace of its own hides nobody
    let hidden = format!("unshare -Upf sh -c '{}'", many.replace('\'', "\""));
    for code in [doubling, many, &hidden] {
        exceeds(&fixture, bounds.clone(), code, "it had more than 200 processes");
    }
}

fn memory_is_bounded() {
    let fixture = Fixture::new();
    let bounds = Bounds { memory: 2, ..Bounds::default() };
    // a twentieth of the machine's memory at most, in one process, in several, in files
    let most = rustix::system::sysinfo().totalram / (20 << 20);
    for code in [
        format!("dd if=/dev/zero bs={most}M count=1 | sleep 30"),
        format!("for n in 1 2 3 4 5; do dd if=/dev/zero bs={}M count=1 | sleep 30 & done; wait", most / 5),
        format!("dd if=/dev/zero of=/dev/shm/file bs=1M count={most}; sleep 30"),
        format!("dd if=/dev/zero of=/run/file bs=1M count={most}; sleep 30"),
    ] {
        exceeds(&fixture, bounds.clone(), &code, "MiB of memory");
    }
}

fn disk_is_bounded() {
    let fixture = Fixture::new();
    for (size, code) in [
        ("size=64m", "dd if=/dev/zero of=/usr/file bs=1M count=100; sleep 30"),
        (
            "size=64m,nr_inodes=1000",
            "n=0; while test $n -lt 900; do : > /usr/$n; n=$((n + 1)); done; sleep 30",
        ),
    ] {
        let small = fixture.scratch(size);
        let options = std::ffi::CString::new(size).unwrap();
        rustix::mount::mount("tmpfs", &small, "tmpfs", MountFlags::empty(), options.as_c_str()).unwrap();
        copy(&fixture.sandbox.rootfs, &small);
        let mut full = fixture.sandbox.clone();
        full.rootfs.clone_from(&small);
        let error = full.run(&shell(code)).expect_err(code);
        let expected = format!("50 % of what was free on the disk of {}", small.display());
        assert!(format!("{error:#}").contains(&expected), "{code}: {error:#}");
        rustix::mount::unmount(&small, rustix::mount::UnmountFlags::DETACH).unwrap();
    }
}

fn copy(from: &Path, to: &Path) {
    let status = process::Command::new("cp").arg("-a").arg(from.join(".")).arg(to).status().unwrap();
    assert!(status.success());
}

fn output_is_bounded() {
    let fixture = Fixture::new();
    let bounds = Bounds { output: 10 << 20, ..Bounds::default() };
    exceeds(&fixture, bounds, "yes | head -c 1000000000; sleep 30", "more than 10 MiB of output");
    let fine = Bounds { output: 10 << 20, ..Bounds::default() };
    let outcome = fixture.run(&Command { bounds: fine, ..shell("yes | head -c 9000000; sleep 0.2") });
    assert_eq!((outcome.status, outcome.output.len()), (0, 64 * 1024));
}

fn first_to_go_and_no_core() {
    let fixture = Fixture::new();
    assert_eq!(fixture.sh("cat /proc/self/oom_score_adj; ulimit -c"), "1000\n0\n");
}
