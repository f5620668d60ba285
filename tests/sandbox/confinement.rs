//! What a command in the sandbox sees, and what it can do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process;
use std::time::Duration;

use strata::sandbox::{Command, Sandbox};

use crate::Check;
use crate::fixture::{Fixture, shell};

pub const CHECKS: &[Check] = &[
    ("no_network", no_network),
    ("no_host", no_host),
    ("fixed_environment", fixed_environment),
    ("ids_and_capabilities", ids_and_capabilities),
    ("no_kernel_settings", no_kernel_settings),
    ("writes", writes),
    ("statuses", statuses),
    ("input_and_output", input_and_output),
    ("empty_rootfs_stays_empty", empty_rootfs_stays_empty),
    ("background_processes_end", background_processes_end),
    ("nothing_survives", nothing_survives),
    ("no_way_out", no_way_out),
    ("files_of_the_host_stay_as_they_are", files_of_the_host_stay_as_they_are),
    ("nothing_to_climb_on", nothing_to_climb_on),
    ("nothing_inherited", nothing_inherited),
    ("no_sockets_of_the_host", no_sockets_of_the_host),
    ("sandboxes_side_by_side", sandboxes_side_by_side),
];

fn no_network() {
    let fixture = Fixture::new();
    assert_eq!(fixture.sh("cat /proc/net/dev").lines().skip(2).count(), 1, "only lo");
    // a server that any process of the host can reach
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    server.set_nonblocking(true).unwrap();
    let port = server.local_addr().unwrap().port();
    let connect = format!("nc -w 5 127.0.0.1 {port} </dev/null");
    process::Command::new("busybox").args(["sh", "-c", &format!("{connect} & sleep 0.2")]).status().unwrap();
    assert!(server.accept().is_ok());
    assert_ne!(fixture.run(&shell(&connect)).status, 0);
    assert!(server.accept().is_err());
}

fn no_host() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.sh("ls /").split_whitespace().collect::<Vec<_>>(),
        ["bin", "dev", "etc", "proc", "run", "tmp", "usr", "var"]
    );
    assert_eq!(fixture.sh("ls /run /tmp /var/tmp"), "/run:\nstrata\n\n/tmp:\n\n/var/tmp:\n");
    assert_eq!(fixture.sh("hostname"), "localhost\n");
    let pids = fixture.sh("cat /proc/[0-9]*/comm");
    assert!(pids.lines().all(|comm| ["bwrap", "sh", "ls", "cat"].contains(&comm)), "{pids}");
    assert_eq!(
        fixture.sh("ls /dev"),
        "core\nfd\nfull\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n"
    );
    // whatever is mounted is on one of our places; their contents were looked at above
    let mounts = fixture.sh("cat /proc/mounts");
    for point in mounts.lines().filter_map(|line| line.split(' ').nth(1)) {
        let ours = ["/proc", "/dev", "/run", "/tmp", "/var/tmp"].iter().any(|dir| point.starts_with(dir));
        assert!(ours || point == "/", "{mounts}");
    }
}

fn fixed_environment() {
    let fixture = Fixture::new();
    let mut command = shell("env; umask; echo $0; pwd");
    command.env.push(("MINE".into(), "a b".into()));
    let output = fixture.run(&command).output;
    let mut lines: Vec<_> = output.lines().filter(|line| !line.starts_with("SHLVL=")).collect();
    let tail = lines.split_off(lines.len() - 3);
    lines.sort_unstable();
    assert_eq!(
        lines,
        [
            "HOME=/",
            "LANG=C.UTF-8",
            "MINE=a b",
            "PATH=/sbin:/bin:/usr/sbin:/usr/bin",
            "PWD=/",
            "SOURCE_DATE_EPOCH=1739145600",
            "SYSTEMD_OFFLINE=1",
        ]
    );
    assert_eq!(tail, ["0022", "/run/strata/script", "/"]);
}

fn ids_and_capabilities() {
    let fixture = Fixture::new();
    assert_eq!(fixture.sh("id -u; id -g; id -G"), "0\n0\n0\n");
    assert_eq!(
        fixture.sh("touch /f /g; chown 12345:65534 /f; chown 0:0 /g; stat -c %u:%g /f /g"),
        "12345:65534\n0:0\n"
    );
    let meta = fs::metadata(fixture.path("/f")).unwrap();
    assert_eq!((meta.uid(), meta.gid()), (12345, 65534), "strata sees what the command sees");
    // what a package with %caps needs, seen by the real tools
    let tool = |args: &[&str]| {
        let output = process::Command::new(args[0]).args(&args[1..]).arg(fixture.path("/f")).output();
        let output = output.unwrap_or_else(|e| panic!("{}, of libcap: {e}", args[0]));
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    tool(&["setcap", "cap_net_raw=ep"]);
    assert!(tool(&["getcap"]).ends_with("cap_net_raw=ep\n"));
}

fn no_kernel_settings() {
    let fixture = Fixture::new();
    // a setting that does no harm if it is written: its own value
    let write = "v=$(cat /proc/sys/vm/swappiness); echo $v > /proc/sys/vm/swappiness";
    for code in [
        write.to_owned(),
        format!("umount /proc/sys; {write}"),
        format!("mount -o remount,rw /proc; {write}"),
        format!("mount -t proc proc /proc; {write}"),
        format!("unshare -Umpf sh -c 'mount -t proc proc /proc; mount -o remount,rw /proc; {write}'"),
    ] {
        let outcome = fixture.run(&shell(&code));
        assert_ne!(outcome.status, 0, "{code}");
        assert!(outcome.output.contains("/proc/sys/vm/swappiness: "), "{code}: {}", outcome.output);
    }
}

fn writes() {
    let fixture = Fixture::new();
    fixture.sh("echo kept > /usr/new; mkdir -m 2750 /usr/dir; for d in run tmp var/tmp dev; do echo lost > /$d/file; done");
    assert_eq!(fs::read_to_string(fixture.path("/usr/new")).unwrap(), "kept\n");
    assert_eq!(fs::metadata(fixture.path("/usr/dir")).unwrap().permissions().mode() & 0o7777, 0o2750);
    for dir in ["run", "tmp", "var/tmp", "dev"] {
        assert_eq!(fs::read_dir(fixture.path(dir)).unwrap().count(), 0, "/{dir}");
    }
    assert_eq!(fixture.sh("stat -c %a /tmp /var/tmp /run"), "1777\n1777\n755\n");
}

fn statuses() {
    let fixture = Fixture::new();
    let status = |code: &str| fixture.run(&shell(code)).status;
    assert_eq!(status("exit 7"), 7);
    assert_eq!(status("kill -9 $$"), 137);
    assert_eq!(status("kill -15 $$"), 143);
    let program = |name: &str| fixture.run(&Command { argv: vec![name.into()], ..Command::default() });
    let missing = program("/usr/bin/python3");
    assert_eq!(missing.status, 127);
    assert!(missing.output.contains("/usr/bin/python3"), "{}", missing.output);
    assert_eq!(program("/etc/passwd").status, 126);
    assert_eq!(program("/bin/true").status, 0);
    let nowhere = Sandbox { rootfs: fixture.path("/nowhere"), epoch: 0 };
    let error = format!("{:#}", nowhere.run(&shell("true")).unwrap_err());
    assert!(error.contains("/nowhere"), "{error}");
}

fn input_and_output() {
    let fixture = Fixture::new();
    let stdin = "/usr/share/a/file/name\n".repeat(50_000);
    let outcome = fixture.run(&Command { stdin: stdin.clone().into_bytes(), ..shell("cat; echo end >&2") });
    assert_eq!(outcome.output.len(), 64 * 1024);
    assert!(outcome.output.ends_with("/name\nend\n"));
    // neither a command that ignores its input nor one without input hangs
    assert_eq!(
        fixture.run(&Command { stdin: stdin.into_bytes(), ..shell("head -n 1") }).output,
        "/usr/share/a/file/name\n"
    );
    assert_eq!(fixture.sh("cat; stat -L -c %F /proc/self/fd/0"), "fifo\n");
}

fn empty_rootfs_stays_empty() {
    let fixture = Fixture::new();
    let rootfs = fixture.scratch("empty");
    let sandbox = Sandbox { rootfs: rootfs.clone(), epoch: 0 };
    assert_eq!(sandbox.run(&shell("true")).unwrap().status, 127);
    assert_eq!(fs::read_dir(&rootfs).unwrap().count(), 0);
}

fn background_processes_end() {
    let fixture = Fixture::new();
    let outcome = fixture.run(&shell("sleep 100 & echo done"));
    assert_eq!(outcome.output, "done\n");
    assert!(outcome.duration.as_secs() < 50);
}

/// Daemons in sessions of their own, without our pipes: when the sandbox has ended none is left to change the
/// rootfs, not even for a moment.
fn nothing_survives() {
    let fixture = Fixture::new();
    let mark = format!("strata-test-{}", process::id());
    let daemon = format!("setsid sh -c 'while :; do :; done' {mark} </dev/null >/dev/null 2>&1 &");
    let start = format!("n=0; while test $n -lt 100; do {daemon} n=$((n + 1)); done");
    for _ in 0..5 {
        fixture.sh(&start);
        let commands = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path().join("cmdline"));
        let alive = commands.filter(|file| fs::read_to_string(file).is_ok_and(|line| line.contains(&mark)));
        assert_eq!(alive.count(), 0);
    }
}

/// What takes rights over the machine fails, and so it does in a user namespace of one's own.
fn no_way_out() {
    let fixture = Fixture::new();
    for code in [
        "mknod /usr/disk b 8 0",
        "mount -t tmpfs none /usr",
        "mount -o bind /usr /etc",
        "chroot /proc/1/root ls /home",
        "cat /proc/kcore",
        "echo c > /proc/sysrq-trigger",
        "kill -0 $(($$ + 100))",
    ] {
        // -r would write to /proc, which is read-only: all capabilities, but an id that is nobody's
        for code in [code.to_owned(), format!("unshare -Um sh -c '{code}'")] {
            let outcome = fixture.run(&shell(&code));
            assert_ne!(outcome.status, 0, "{code}: {}", outcome.output);
        }
    }
    // mounts of a namespace of one's own are nobody else's
    fixture.sh("unshare -Um sh -c 'mount -t tmpfs none /usr && echo > /usr/lost' || true");
    assert!(fixture.path("/usr/bin/busybox").exists() && !fixture.path("/usr/lost").exists());
}

/// What is the host's and can be reached: devices, and the program whose process is the first. Root inside owns
/// them if strata's user does.
fn files_of_the_host_stay_as_they_are() {
    let fixture = Fixture::new();
    let bwrap = process::Command::new("sh").args(["-c", "command -v bwrap"]).output().unwrap();
    let bwrap = fs::canonicalize(String::from_utf8(bwrap.stdout).unwrap().trim()).unwrap();
    for (host, inside) in [(bwrap.as_path(), "/proc/1/exe"), (Path::new("/dev/zero"), "/dev/zero")] {
        let seen = || {
            let meta = fs::metadata(host).unwrap();
            (meta.ctime(), meta.ctime_nsec(), meta.mode())
        };
        let before = seen();
        for tool in ["touch", "chmod 4755", "chown 0:0", "rm -f"] {
            let code = format!("{tool} {inside}");
            let outcome = fixture.run(&shell(&code));
            assert_ne!(outcome.status, 0, "{code}: {}", outcome.output);
            assert_eq!(seen(), before, "{code}");
        }
    }
    assert_ne!(fixture.run(&shell("echo > /proc/1/exe")).status, 0);
    // devices are there to be used
    fixture.sh("head -c 3 /dev/zero > /dev/null && head -c 3 /dev/urandom > /dev/zero");
}

/// No new privileges by set-id files, no devices, no terminal, no process but those of the sandbox.
fn nothing_to_climb_on() {
    let fixture = Fixture::new();
    assert!(fixture.sh("cat /proc/self/status").contains("NoNewPrivs:\t1\n"));
    assert!(fixture.sh("cat /proc/mounts").lines().all(|line| line.contains("nosuid")));
    for code in [
        "cat /dev/tty",
        "mknod /usr/console c 5 1",
        "mknod /dev/shm/kmsg c 1 11",
        "unshare -U mknod /usr/mem c 1 1",
        "cat /proc/kmsg",
        "echo 0 > /proc/self/oom_score_adj",
        "echo core > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/1/mem",
        "ls /proc/1/root/home /proc/1/cwd/home",
        "unshare -Um umount /proc",
        "unshare -Upfm sh -c 'mount -t proc proc /proc'",
        "unshare -Um mount -o remount,bind,rw /run/strata/script",
    ] {
        let outcome = fixture.run(&shell(code));
        assert_ne!(outcome.status, 0, "{code}: {}", outcome.output);
    }
    let strata = format!("test -e /proc/{}", process::id());
    assert_eq!(fixture.run(&shell(&strata)).status, 1);
}

/// Pipes, and the script that the shell reads.
fn nothing_inherited() {
    let fixture = Fixture::new();
    let links = fixture.sh("for fd in /proc/$$/fd/* /proc/1/fd/*; do readlink $fd; done; true");
    let ours = |link: &str| {
        link.starts_with("pipe:") || link == "/run/strata/script" || link == "anon_inode:[eventfd]"
    };
    assert!(links.lines().count() >= 6 && links.lines().all(ours), "{links}");
}

fn no_sockets_of_the_host() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let name = format!("strata-test-{}", process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    assert!(fs::read_to_string("/proc/net/unix").unwrap().contains(&name));
    let fixture = Fixture::new();
    assert!(!fixture.sh("cat /proc/net/unix").contains("strata-test"));
}

/// Neither of two sandboxes that start at once holds a pipe of the other: each would wait for the other's end,
/// and its command for input that comes after.
fn sandboxes_side_by_side() {
    let (done, ended) = std::sync::mpsc::channel();
    let fixtures = [(); 4].map(|()| Fixture::new());
    for fixture in fixtures {
        let done = done.clone();
        std::thread::spawn(move || {
            for _ in 0..100 {
                let command = Command { stdin: b"said".to_vec(), ..shell("cat") };
                assert_eq!(fixture.run(&command).output, "said");
            }
            done.send(())
        });
    }
    for _ in 0..4 {
        ended.recv_timeout(Duration::from_secs(120)).expect("none of them waits for another");
    }
}
