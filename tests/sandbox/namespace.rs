//! The namespace that strata makes for itself, seen through processes of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use strata::sandbox::enter_namespace;

use crate::Check;

pub const CHECKS: &[Check] = &[
    ("same_view_for_everybody", same_view_for_everybody),
    ("exit_codes_pass_through", exit_codes_pass_through),
    ("inner_dies_with_outer", inner_dies_with_outer),
    ("threads_are_refused", threads_are_refused),
    ("open_files_are_kept", open_files_are_kept),
    ("keys_are_kept", keys_are_kept),
];

/// The argument that makes this program enter a namespace and run shell code there.
pub const CHILD: &str = "--child";

pub fn child(code: &str) -> ExitCode {
    match enter_namespace() {
        Ok(Some(code)) => code.into(),
        Ok(None) => {
            let status = Command::new("sh").args(["-c", code]).status().unwrap();
            u8::try_from(status.code().unwrap()).unwrap().into()
        }
        Err(_) => ExitCode::FAILURE,
    }
}

/// The child is started inside our own namespace, so it is one in another.
fn in_namespace(code: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([CHILD, code]).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

fn same_view_for_everybody() {
    for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
        let text = fs::read_to_string(map).unwrap();
        let ids = text.lines().map(|line| line.split_whitespace().nth(2).unwrap().parse::<u32>().unwrap());
        assert_eq!(ids.sum::<u32>(), 65536, "{text}");
    }
    let output = in_namespace("id -u; id -g; id -G; umask").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "0\n0\n0\n0022\n");
}

fn exit_codes_pass_through() {
    for (code, expected) in [("true", 0), ("exit 7", 7), ("kill -KILL $PPID", 137), ("kill -TERM $PPID", 143)]
    {
        assert_eq!(in_namespace(code).status().unwrap().code(), Some(expected), "{code}");
    }
}

fn inner_dies_with_outer() {
    let mut outer = in_namespace("echo $PPID; read wait").spawn().unwrap();
    let mut inner = String::new();
    BufReader::new(outer.stdout.take().unwrap()).read_line(&mut inner).unwrap();
    let alive = || {
        let status = fs::read_to_string(format!("/proc/{}/status", inner.trim())).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    assert!(alive());
    outer.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while alive() {
        assert!(Instant::now() < deadline, "the inner process outlives the outer one");
        std::thread::sleep(Duration::from_millis(10));
    }
    outer.wait().unwrap();
}

fn threads_are_refused() {
    let error = std::thread::spawn(enter_namespace).join().unwrap().unwrap_err();
    assert!(format!("{error:#}").contains("2"), "{error:#}");
}

/// A directory of the host that a scriptlet inherits would lead it out of the sandbox.
fn open_files_are_kept() {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec 9</; exec "$0" "$@""#]).arg(std::env::current_exe().unwrap());
    let output =
        shell.args([CHILD, "test -e /proc/self/fd/2 && ! test -e /proc/self/fd/9"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

/// Puts a key into a session keyring of its own, and looks for it before and after.
fn keys_are_kept() {
    let (add_key, keyctl) = (libc::SYS_add_key, libc::SYS_keyctl);
    let search = format!("call({keyctl}, 10, -3, b'user', b'strata-test', 0)");
    let prelude = "import ctypes, os, sys; call = ctypes.CDLL(None).syscall";
    let inside = format!("python3 -c \"{prelude}; sys.exit({search} != -1)\"");
    let outside = format!(
        "{prelude}; call({keyctl}, 1, None); key = call({add_key}, b'user', b'strata-test', b'secret', 6, -3); \
         assert {search} == key, 'the key is not found'; os.execv(sys.argv[1], sys.argv[1:])"
    );
    let mut python = Command::new("python3");
    python.args(["-c", &outside]).arg(std::env::current_exe().unwrap()).args([CHILD, &inside]);
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
}
