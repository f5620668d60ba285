//! Scriptlets, Lua above all, against rpm itself.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use strata::install::lua::UNAVAILABLE;
use strata::install::macros::Macros;
use strata::install::script::Runner;
use strata::install::{ScriptCall, ScriptRunner};
use strata::package::header::{Header, Phase, Scriptlet};
use strata::sandbox::{Outcome, Sandbox};

use crate::Check;
use crate::fixture::{Fixture, strata};

pub const CHECKS: &[Check] = &[
    ("lua_functions_equal_rpms", lua_functions_equal_rpms),
    ("lua_names_equal_rpms", lua_names_equal_rpms),
    ("scriptlets_do_what_rpms_do", scriptlets_do_what_rpms_do),
    ("lua_needs_nothing_of_the_rootfs", lua_needs_nothing_of_the_rootfs),
    ("lua_is_confined", lua_is_confined),
    ("lua_leaves_its_program_alone", lua_leaves_its_program_alone),
    ("bounds_name_the_script", bounds_name_the_script),
    ("lua_errors", lua_errors),
    ("lua_arguments_and_input", lua_arguments_and_input),
    ("later_functions", later_functions),
    ("shell_scriptlets", shell_scriptlets),
];

/// Prints the results of a call; messages without the path, which only some of rpm's functions name.
const SHOW: &str = r#"
local function show(...)
  local out, given = {}, table.pack(...)
  if given[1] == nil and given.n == 3 then given[2] = given[2]:match("[^:]+$"):gsub("^ ", "") end
  for i = 1, given.n do
    local v = given[i]
    out[i] = type(v) .. ":" .. tostring(v)
  end
  io.write(table.concat(out, ", "), "\n")
end
local function raises(f, ...) io.write(pcall(f, ...) and "fine\n" or "raised\n") end
"#;

/// Each runs in an empty directory of its own.
const CALLS: &[&str] = &[
    r#"show(posix.mkdir("d")) show(posix.mkdir("d")) show(posix.mkdir("x/y")) show(posix.stat("d", "mode"))"#,
    r#"show(posix.stat("nope")) show(posix.stat("/etc/passwd", "type")) show(posix.stat("/dev/null", "type"))"#,
    r#"posix.mkdir("d") local s = posix.stat("d") show(s.type, s.mode, s._mode, s.nlink, s.uid, s.gid)"#,
    r#"raises(posix.stat, "/", "bogus") raises(posix.stat)"#,
    r#"posix.symlink("nowhere", "l") show(posix.stat("l", "type")) show(posix.readlink("l")) show(posix.access("l"))"#,
    r#"show(posix.readlink("nope")) show(posix.symlink("x", "no/l")) show(posix.symlink("x", "/"))"#,
    r#"io.open("f", "w"):close() show(posix.link("f", "g")) show(posix.stat("f", "nlink")) show(posix.unlink("g")) show(posix.unlink("g"))"#,
    r#"show(posix.access("/etc/passwd")) show(posix.access("/etc/passwd", "r")) show(posix.access("nope", "f")) raises(posix.access, "/", "q")"#,
    r#"io.open("f", "w"):close() show(posix.chmod("f", "600")) show(posix.access("f", "x")) show(posix.access("f", "rw"))"#,
    r#"posix.mkdir("d") for _, m in ipairs{"0700", "755", "rwxr-x---", "u=rwx,g+rx,o-rwx", "g+w", "a-w", "rwxr-sr-x"} do show(posix.chmod("d", m)) show(posix.stat("d", "mode")) end"#,
    r#"posix.mkdir("d") posix.chmod("d", 711) show(posix.stat("d", "mode")) raises(posix.chmod, "d", "zz") show(posix.chmod("nope", "755"))"#,
    r#"posix.mkdir("d") show(posix.chown("d", 12, 34)) local s = posix.stat("d") show(s.uid, s.gid) show(posix.chown("d", "root")) s = posix.stat("d") show(s.uid, s.gid)"#,
    r#"posix.mkdir("d") show(posix.chown("d", "root", "root")) show(posix.chown("d", "no-such-user", "root")) show(posix.stat("d", "uid"))"#,
    r#"posix.mkdir("d") local s = posix.stat(".") show(posix.chown("d", s.uid, s.gid)) show(posix.sleep(0)) show(posix.setuid(s.uid))"#,
    r#"io.open("f", "w"):close() show(posix.utime("f", 5, 6)) show(posix.stat("f", "mtime")) show(posix.stat("f", "atime")) show(posix.utime("nope", 1, 1))"#,
    r#"show(posix.mkfifo("p")) show(posix.stat("p", "type")) show(posix.stat("p", "mode")) show(posix.rmdir("p")) show(posix.rmdir("nope"))"#,
    r#"for _, n in ipairs{"c", "a", "b"} do posix.mkdir(n) end local t = posix.dir(".") table.sort(t) show(table.unpack(t))"#,
    r#"posix.mkdir("a") local t = {} for n in posix.files(".") do t[#t + 1] = n end table.sort(t) show(table.unpack(t))"#,
    r#"show(posix.dir("nope")) show(posix.files("nope"))"#,
    r#"posix.mkdir("d") show(posix.chdir("d")) posix.mkdir("e") show(posix.chdir("../d/e")) show(posix.chdir("nope"))"#,
    r#"show(posix.getenv("STRATA_NONE")) show(posix.setenv("A", "b")) show(os.getenv("A")) show(posix.setenv("A", "c", false)) show(posix.getenv("A"))"#,
    r#"show(posix.setenv("A", "c", true)) show(posix.getenv("A")) show(posix.unsetenv("A")) show(posix.getenv("A")) show(posix.putenv("B=1=2")) show(posix.getenv("B")) show(type(posix.getenv()))"#,
    r#"posix.setenv("A", "seen") show(rpm.execute("/bin/sh", "-c", "test $A = seen"))"#,
    r#"show(posix.getpasswd("root", "uid")) show(posix.getpasswd(0, "dir")) show(posix.getpasswd("no-such-user")) show(posix.getpasswd("daemon").shell)"#,
    r#"show(posix.getgroup("root").gid) show(posix.getgroup(1).name) show(posix.getgroup("no-such-group"))"#,
    r#"show(posix.umask()) show(posix.umask("rwxr-x---")) show(posix.umask("zz")) posix.mkdir("d") show(posix.stat("d", "mode"))"#,
    r#"show(posix.uname("%s %m %%")) raises(posix.uname, "%q")"#,
    r#"show(posix.getprocessid("euid")) show(type(posix.getprocessid().pid)) raises(posix.getprocessid, "bogus")"#,
    r#"show(rpm.vercmp("1.0", "1.1")) show(rpm.vercmp("1:1", "2-1")) show(rpm.vercmp("1-2", "1-1")) show(rpm.vercmp("6.12.0", "2.6.32")) show(rpm.vercmp("1~rc", "1")) raises(rpm.vercmp, "", "")"#,
    r#"show(rpm.execute("/bin/true")) show(rpm.execute("/bin/sh", "-c", "exit 3")) show(rpm.execute("true"))"#,
    r#"show((rpm.execute("no-such-program"))) local _, _, errno = rpm.execute("no-such-program") show(errno)"#,
    r#"show(rpm.expand("%{_sysconfdir}/a %{?none}%{!?none:b} 5%%")) show(rpm.define("mine its value")) show(rpm.expand("<%{mine}>")) show(rpm.isdefined("mine")) rpm.undefine("mine") show((rpm.isdefined("mine")))"#,
    r#"show(macros._sysconfdir) show(macros.none) macros.mine = "a %{_var}" show(macros.mine, rpm.expand("%{mine}"))"#,
    r#"show(rpm.b64encode(("x"):rep(100))) show(rpm.b64encode(("x"):rep(48))) show(rpm.b64encode("\0\255", 0)) show(rpm.b64encode(("x"):rep(30), 10)) show(rpm.b64encode("")) raises(rpm.b64encode)"#,
    r#"show(rpm.b64decode("eHh4\neHg=")) show(rpm.b64decode("e H\ng=")) show(rpm.b64decode("eHg")) show(rpm.b64decode("eHg=trash")) show(rpm.b64decode("!")) show(rpm.b64decode(""))"#,
    r#"local v = rpm.ver("1:2-3") show(v.e, v.v, v.r, tostring(v)) local w = rpm.ver("2") show(w.e, w.v, w.r, tostring(w))"#,
    r#"show(tostring(rpm.ver("0", "2", "3")), tostring(rpm.ver("1", "2", nil))) raises(rpm.ver, "1", "2")"#,
    r#"local v = rpm.ver show(v("1") < v("2"), v("1.0") == v("1.00"), v("1") <= v("0"), v("1-1") == v("1"), v("0:1") == v("1")) raises(rpm.vercmp, v("1"), "2")"#,
    r#"posix.mkdir("x/y") show(posix.errno()) show(posix.stat("/nope", "size") == nil, posix.errno())"#,
    r#"local pid = posix.fork() if pid == 0 then posix.exec("/bin/sh", "-c", "echo in > child; exit 4") end show(posix.wait(pid) == pid) show(posix.stat("child", "size"))"#,
    r#"local pid = posix.fork() if pid == 0 then posix.redirect2null(2) posix.exec("/bin/sh", "-c", "echo lost >&2; echo kept > f") end posix.wait(pid) show(io.open("f"):read("a"))"#,
    r#"raises(posix.exec, "/bin/true") raises(os.exit, 1) raises(posix.redirect2null, 1) show(posix.wait(-1))"#,
    r#"show(os.execute("exit 2")) show(os.execute()) show(io.popen("echo hi"):read("l"))"#,
    r#"local f = io.open("f", "w") f:write("a\nb\n") f:close() for l in io.lines("f") do show(l) end show(os.rename("f", "g")) show(os.remove("g")) show(os.remove("g"))"#,
];

fn lua_functions_equal_rpms() {
    let mut different = Vec::new();
    for call in CALLS {
        let (ours, rpms) = both(&format!("{SHOW}{call}"));
        if rpms.is_empty() || ours != rpms {
            different.push(format!("{call}\nours:\n{ours}\nrpm's:\n{rpms}\n"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// What a script prints in our Lua and in rpm's, each in an empty directory.
fn both(body: &str) -> (String, String) {
    let script = tempfile::NamedTempFile::new().unwrap();
    fs::write(script.path(), body).unwrap();
    let script = script.path().to_str().unwrap();
    let job = serde_json::json!({ "name": "test", "args": [], "prefixes": [], "macros": Macros::default() });
    let output = |program: &Path, args: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        let output = Command::new(program).args(args).current_dir(dir.path()).output();
        let output = output.unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        assert!(output.status.success(), "{body}\n{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let ours = output(&strata(), &["__lua", &job.to_string(), script]);
    (ours, output(Path::new("rpm"), &["--eval", &format!("%{{lua:dofile('{script}')}}")]))
}

/// Every name in the tables of rpm's Lua is one of ours. Those that scripts cannot use say so when they are called.
fn lua_names_equal_rpms() {
    // of Lua 5.3, which Debian 12 builds rpm with; EL9 and EL10 have 5.4. A debugger could break out of Lua.
    let lacking = ["_G.bit32", "_G.debug"];
    let names = "for _, t in ipairs{'_G', 'io', 'os', 'posix', 'rpm', 'string', 'table', 'math', 'utf8', 'coroutine'} do
        for n in pairs(_G[t]) do io.write(t, '.', n, '\\n') end end";
    let (ours, rpms) = both(names);
    let (ours, rpms) = (ours.lines().collect::<BTreeSet<_>>(), rpms.lines().collect::<BTreeSet<_>>());
    assert!(rpms.len() > 150, "{rpms:?}");
    assert_eq!(rpms.difference(&ours).copied().collect::<Vec<_>>(), lacking);
    let fixture = Fixture::new();
    for (table, name, reason) in UNAVAILABLE {
        assert!(rpms.contains(format!("{table}.{name}").as_str()), "rpm has no {table}.{name}");
        let outcome = lua(&fixture.sandbox, &format!("if {table}.{name} then {table}.{name}('x') end"));
        let expected = format!(
            "error: %post(foo-1-2.noarch):1: {table}.{name} is not available to scriptlets: {reason}\n"
        );
        assert_eq!(outcome.output, expected);
    }
}

/// What the Lua scriptlets of EL packages do, in their own ways of doing it; no `%`, which spec files expand.
const SCRIPTLETS: &[(Phase, &str, &str, &str)] = &[
    // filesystem: the tree before any file, and a link in the place of a directory
    (
        Phase::Pretrans,
        "%pretrans",
        "<lua>",
        r#"
posix.mkdir("/usr")
for _, name in ipairs{"lib", "lib64", "sbin"} do
  posix.mkdir("/usr/" .. name)
  posix.chmod("/usr/" .. name, 0755)
  posix.symlink("usr/" .. name, "/" .. name)
end
local st = posix.stat("/usr/share/old")
if st and st.type == "directory" then
  local status = os.rename("/usr/share/old", "/usr/share/old.rpmmoved")
  if not status then
    local suffix = 0
    while not status do
      suffix = suffix + 1
      status = os.rename("/usr/share/old.rpmmoved", "/usr/share/old.rpmmoved." .. suffix)
    end
    os.rename("/usr/share/old", "/usr/share/old.rpmmoved")
  end
end
posix.symlink("new", "/usr/share/old")
"#,
    ),
    // ca-certificates, useradd in spirit
    (
        Phase::Pre,
        "%pre",
        "/bin/sh",
        r#"
echo "$RPM_INSTALL_PREFIX $RPM_INSTALL_PREFIX0 $RPM_INSTALL_PREFIX1" > /etc/sh-prefixes
if [ $1 -gt 1 ]; then echo upgrade > /etc/pre; else echo "fresh $#" > /etc/pre; fi
mkdir -p -m 2750 /usr/state
chown ada:wheel /usr/state
"#,
    ),
    // glibc: rewrite a file beside itself, keep its times, fork and exec
    (
        Phase::Post,
        "%post",
        "<lua>",
        r#"
local remove_dirs = { "/usr/lib/i686/", "/usr/lib/i686/nosegneg/" }
for _, dir in ipairs(remove_dirs) do
  if posix.access(dir) then
    for file in posix.files(dir) do
      if file:match("^libc") then posix.unlink(dir .. file) end
    end
    posix.rmdir(dir)
  end
end
local conf, temp = "/etc/ld.so.conf", "/etc/ld.so.conf.rpmtemp"
posix.unlink(temp)
if posix.stat(conf) then
  local lines, found = {}, false
  for line in io.lines(conf) do
    if line == "include ld.so.conf.d/*.conf" then found = true end
    lines[#lines + 1] = line
  end
  if not found then
    local out = assert(io.open(temp, "w"))
    out:write("include ld.so.conf.d/*.conf\n")
    for _, line in ipairs(lines) do out:write(line .. "\n") end
    out:close()
    os.rename(temp, conf)
    posix.utime(conf, 1700000000, 1700000000)
    posix.chmod(conf, "rw-r--r--")
  end
end
local pid = posix.fork()
if pid == 0 then
  assert(posix.exec("/bin/sh", "-c", "echo cache > /etc/ld.so.cache"))
elseif pid > 0 then
  posix.wait(pid)
end
assert(rpm.execute("/bin/sh", "-c", "echo executed $0 > /etc/executed") == 0)
io.open("/etc/args", "w"):write(#arg, " ", arg[1], " ", math.floor(arg[2]), "\n")
"#,
    ),
    // bash and setup, after everything
    (
        Phase::Posttrans,
        "%posttrans",
        "<lua>",
        r#"
local nl, sh = "\n", "/bin/sh" .. "\n"
local f = io.open("/etc/shells", "a+")
if f then
  local shells = nl .. f:read("*all") .. nl
  if not shells:find(nl .. sh) then f:write(sh) end
  f:close()
end
for _, name in ipairs{"passwd", "shadow", "group", "gshadow"} do
  if posix.access("/etc/" .. name .. ".rpmnew", "f") then os.remove("/etc/" .. name .. ".rpmnew") end
end
os.execute("umask > /etc/umask")
local st = posix.stat("/etc/passwd", "mode")
posix.symlink(st, "/etc/mode")
local f = io.open("/etc/prefixes", "a")
f:write(RPM_INSTALL_PREFIX[1], RPM_INSTALL_PREFIX[2], #RPM_INSTALL_PREFIX, "\n")
f:close()
"#,
    ),
];

/// What the scriptlets find.
fn prepare(fixture: &Fixture) {
    fixture.sh("mkdir -p /opt/one /usr/share/old /usr/share/old.rpmmoved/x /usr/lib/i686 /var/lib/rpm
        echo a > /usr/share/old/a; touch /usr/lib/i686/libc.so /etc/group.rpmnew
        echo /usr/lib/mine > /etc/ld.so.conf; chmod 600 /etc/ld.so.conf; echo /bin/zsh > /etc/shells");
}

fn scriptlets_do_what_rpms_do() {
    let (rpms, ours) = (Fixture::new(), Fixture::new());
    prepare(&rpms);
    prepare(&ours);
    let header = Header::open(&install_with_rpm(&rpms)).unwrap();
    let runner = Runner::new(ours.sandbox.clone(), strata(), Macros::default()).unwrap();
    for &(phase, ..) in SCRIPTLETS {
        let script = header.scriptlet(phase).unwrap().unwrap();
        let call =
            ScriptCall { header: &header, phase, script: &script, args: vec!["1".into()], stdin: vec![] };
        let outcome = runner.run(&call).unwrap();
        assert_eq!((outcome.status, outcome.output.as_str()), (0, ""), "{phase:?}");
    }
    let (rpms, ours) = (tree(&rpms.sandbox.rootfs), tree(&ours.sandbox.rootfs));
    assert!(ours.contains_key("etc/executed"), "{ours:#?}");
    assert_eq!(ours, rpms);
}

/// Builds a package of the scriptlets and installs it. Returns its file.
fn install_with_rpm(fixture: &Fixture) -> PathBuf {
    let top = fixture.scratch("rpmbuild");
    let mut spec = String::from(
        "Name: scripted\nVersion: 1\nRelease: 1\nSummary: s\nLicense: l\nBuildArch: noarch\n\
         Prefix: /opt/one\nPrefix: /opt/two\nAutoReqProv: no\n%description\nd\n\
         %install\nmkdir -p %{buildroot}/opt/one\n%files\n/opt/one\n",
    );
    for (_, section, interpreter, body) in SCRIPTLETS {
        spec.push_str(&format!("{section} -p {interpreter}{body}\n"));
    }
    fs::write(top.join("scripted.spec"), spec).unwrap();
    let tool = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).current_dir(&top).output();
        let output = output.unwrap_or_else(|e| panic!("{program}: {e}"));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // a scriptlet that fails after the files are there is only reported; Debian's rpm adds a remark
        assert!(output.status.success() && !said.contains("failed"), "{program}: {said}");
    };
    let top_define = format!("_topdir {}", top.display());
    tool("rpmbuild", &["--quiet", "-bb", "--define", &top_define, "scripted.spec"]);
    let root = fixture.sandbox.rootfs.to_str().unwrap();
    let package = "RPMS/noarch/scripted-1-1.noarch.rpm";
    tool("rpm", &["--root", root, "-i", "--nodeps", "--dbpath", "/var/lib/rpm", package]);
    top.join(package)
}

/// Type and mode, owner, and content or target of everything but rpm's database; times only where they are
/// set by a script.
fn tree(root: &Path) -> BTreeMap<String, (u32, u32, u32, String)> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if name == "var/lib/rpm" {
                continue;
            }
            let meta = fs::symlink_metadata(&path).unwrap();
            let content = if meta.is_symlink() {
                fs::read_link(&path).unwrap().to_str().unwrap().to_owned()
            } else if meta.is_dir() {
                todo.push(path);
                String::new()
            } else if name == "usr/bin/busybox" {
                String::new()
            } else {
                let time = if name == "etc/ld.so.conf" { meta.mtime() } else { 0 };
                format!("{time} {}", fs::read_to_string(&path).unwrap())
            };
            found.insert(name, (meta.mode(), meta.uid(), meta.gid(), content));
        }
    }
    found
}

/// The header of a package without files.
fn foo() -> Header {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut builder = rpm::PackageBuilder::new("foo", "1", "MIT", "noarch", "x");
    builder.release("2").build().unwrap().write(&mut file.as_file()).unwrap();
    Header::open(file.path()).unwrap()
}

fn run(sandbox: &Sandbox, phase: Phase, interpreter: &str, body: &str, args: &[&str]) -> Outcome {
    run_with(sandbox, phase, interpreter, body, args, "", 0)
}

fn run_with(
    sandbox: &Sandbox,
    phase: Phase,
    interpreter: &str,
    body: &str,
    args: &[&str],
    stdin: &str,
    flags: u32,
) -> Outcome {
    let header = foo();
    let interpreter = interpreter.split(' ').map(str::to_owned).collect();
    let script = Scriptlet { interpreter, body: Some(body.to_owned()), flags };
    let args = args.iter().map(|&arg| arg.to_owned()).collect();
    let call = ScriptCall { header: &header, phase, script: &script, args, stdin: stdin.into() };
    Runner::new(sandbox.clone(), strata(), Macros::default()).unwrap().run(&call).unwrap()
}

fn lua(sandbox: &Sandbox, body: &str) -> Outcome {
    run(sandbox, Phase::Post, "<lua>", body, &["1"])
}

fn lua_needs_nothing_of_the_rootfs() {
    let fixture = Fixture::new();
    let sandbox = Sandbox { rootfs: fixture.scratch("empty"), epoch: 0 };
    let outcome = lua(
        &sandbox,
        r#"posix.mkdir("/usr") print(posix.stat("/usr", "type")) print((rpm.execute("/bin/sh")))"#,
    );
    assert_eq!((outcome.status, outcome.output.as_str()), (0, "directory\nnil\n"));
    let left: Vec<_> =
        fs::read_dir(&sandbox.rootfs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left, ["usr"]);
}

fn lua_is_confined() {
    let fixture = Fixture::new();
    let host = fixture.scratch("host").join("file");
    let outcome = lua(
        &fixture.sandbox,
        &format!(
            "print(io.open({host:?}, 'w')) print(posix.getpasswd('ada').uid) print(posix.uname('%n %r'))"
        ),
    );
    assert_eq!(outcome.status, 0, "{}", outcome.output);
    assert!(outcome.output.starts_with("nil\t"), "{}", outcome.output);
    assert!(outcome.output.ends_with("\n10.0\nlocalhost 6.12.0\n"), "{}", outcome.output);
    assert!(!host.exists());
}

/// The program that runs Lua, and its libraries, are the host's.
fn lua_leaves_its_program_alone() {
    let fixture = Fixture::new();
    let ctime = || fs::metadata(strata()).unwrap().ctime_nsec();
    let before = ctime();
    let touch = "for file in /proc/$PPID/exe /run/strata/*; do chmod 777 $file && echo $file; done; true";
    let outcome = lua(&fixture.sandbox, &format!("rpm.execute('/bin/sh', '-c', '{touch}')"));
    assert_eq!(outcome.status, 0, "{}", outcome.output);
    assert!(
        outcome
            .output
            .lines()
            .all(|line| line.ends_with("Read-only file system") || line == "/run/strata/lib")
    );
    assert_eq!(ctime(), before);
}

/// A script that is killed fails the build, in whatever phase.
fn bounds_name_the_script() {
    let fixture = Fixture::new();
    let header = foo();
    let runner = Runner::new(fixture.sandbox.clone(), strata(), Macros::default()).unwrap();
    let body = Some("yes | head -c 200000000; sleep 30".to_owned());
    let script = Scriptlet { interpreter: vec!["/bin/sh".into()], body, flags: 0 };
    let phase = Phase::Posttrans;
    let error =
        runner.run(&ScriptCall { header: &header, phase, script: &script, args: vec![], stdin: vec![] });
    let error = format!("{:#}", error.unwrap_err());
    let expected =
        "running %posttrans(foo-1-2.noarch): killed, because it wrote more than 100 MiB of output: y\n";
    assert!(error.starts_with(expected), "{error}");
}

fn lua_errors() {
    let fixture = Fixture::new();
    for (body, expected) in [
        ("\nerror('broken')", "error: %post(foo-1-2.noarch):2: broken\n"),
        (
            "\nif rpm.newer or posix.newer == nil then posix.newer('x') end",
            "error: %post(foo-1-2.noarch):2: posix.newer is not available to scriptlets\n",
        ),
        ("os.no()", "error: %post(foo-1-2.noarch):1: os.no is not available to scriptlets\n"),
        ("nope()", "error: %post(foo-1-2.noarch):1: attempt to call a nil value (global 'nope')\n"),
        ("posix.exec('/bin/true')", "error: %post(foo-1-2.noarch):1: exec not permitted in this context\n"),
        ("\n\nfor _ in ipairs(nil) do end", "error: %post(foo-1-2.noarch):3: attempt to index a nil value\n"),
    ] {
        let outcome = lua(&fixture.sandbox, body);
        assert_eq!((outcome.status, outcome.output.as_str()), (1, expected));
    }
    let outcome = lua(&fixture.sandbox, "local x = = 1");
    assert!(outcome.status == 1 && outcome.output.contains("%post(foo-1-2.noarch):1:"), "{}", outcome.output);
    let outcome = lua(&fixture.sandbox, "rpm.execute('/bin/sh', '-c', 'kill -9 $PPID')");
    assert_eq!(outcome.status, 137);
}

fn lua_arguments_and_input() {
    let fixture = Fixture::new();
    let body = "print(#arg, arg[1], math.type(arg[2]), arg[3] + 1) local f = rpm.next_file() while f do print(f) f = rpm.next_file() end";
    let run =
        |stdin| run_with(&fixture.sandbox, Phase::TransFileTriggerIn, "<lua>", body, &["1", "2"], stdin, 0);
    assert_eq!(run("/usr/lib/a\n/usr/lib/b c\n").output, "3\t<lua>\tinteger\t3\n/usr/lib/a\n/usr/lib/b c\n");
    assert_eq!(run("").output, "3\t<lua>\tinteger\t3\n");
}

/// Functions newer than the rpm that Debian 12 has, `rpm.glob` (4.19) and `rpm.spawn` (4.20), as its manual
/// (rpm: `docs/manual/lua.md`) has them.
fn later_functions() {
    let fixture = Fixture::new();
    let outcome = lua(
        &fixture.sandbox,
        r#"print(rpm.spawn({"/bin/sh", "-c", "echo out; exit 5"}, {stdout = "/etc/out"}))
           print(rpm.spawn({"/bin/true"}), io.open("/etc/out"):read("a"))"#,
    );
    assert_eq!((outcome.status, outcome.output.as_str()), (0, "nil\texit code\t5\n0\tout\n\n"));
    let outcome = lua(
        &fixture.sandbox,
        r#"print(table.unpack(rpm.glob("/etc/*s[sw]*"))) print(#rpm.glob("/no*"), rpm.glob("/no*", "c")[1])"#,
    );
    assert_eq!((outcome.status, outcome.output.as_str()), (0, "/etc/passwd\n0\t/no*\n"));
}

fn shell_scriptlets() {
    let fixture = Fixture::new();
    let run = |interpreter, body, flags| {
        run_with(&fixture.sandbox, Phase::Post, interpreter, body, &["2"], "in\n", flags)
    };
    let outcome = run("/bin/sh -e", "cat; echo $1 $#; false; echo unreachable", 0);
    assert_eq!((outcome.status, outcome.output.as_str()), (1, "in\n2 1\n"));
    assert_eq!(run("/bin/sh", "echo %{_sysconfdir} 5%%", 1).output, "/etc 5%\n");
    assert_eq!(run("/bin/sh", "echo %{NAME} %{VERSION}", 2).output, "foo 1\n");
    assert_eq!(run("/usr/bin/python3", "", 0).status, 127);
    // a program without a body gets neither script nor arguments
    let header = foo();
    let script = Scriptlet {
        interpreter: vec!["/bin/ls".into(), "/tmp".into(), "/etc/group".into()],
        body: None,
        flags: 0,
    };
    let call = ScriptCall {
        header: &header,
        phase: Phase::Post,
        script: &script,
        args: vec!["1".into()],
        stdin: vec![],
    };
    let outcome =
        Runner::new(fixture.sandbox.clone(), strata(), Macros::default()).unwrap().run(&call).unwrap();
    assert_eq!((outcome.status, outcome.output.as_str()), (0, "/etc/group\n\n/tmp:\n"));
}
