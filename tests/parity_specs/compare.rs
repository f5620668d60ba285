//! What two roots are compared in: trees, what scriptlets noted, accounts, the rpmdb's tables, and rpm's
//! answers to queries by each of them.

use std::collections::BTreeSet;
use std::path::Path;

use rusqlite::{Connection, types::Value};
use sha2::{Digest, Sha256};

use crate::common::{RPMDB, rpm_on, tree};

/// The index tables of the rpmdb.
const TABLES: [&str; 18] = [
    "Name",
    "Basenames",
    "Group",
    "Requirename",
    "Providename",
    "Conflictname",
    "Obsoletename",
    "Triggername",
    "Dirnames",
    "Installtid",
    "Sigmd5",
    "Sha1header",
    "Filetriggername",
    "Transfiletriggername",
    "Recommendname",
    "Suggestname",
    "Supplementname",
    "Enhancename",
];

/// A way to look at a root, by name: lines in an order that counts.
pub type View = (&'static str, Vec<String>);

/// What there is in a root.
pub fn state(root: &Path) -> Vec<View> {
    let lines = |path: &str| {
        let text = std::fs::read(root.join(path)).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    vec![
        ("scriptlets", lines("log")),
        ("passwd", lines("etc/passwd")),
        ("group", lines("etc/group")),
        ("tree", tree(root)),
        ("rpmdb", tables(root)),
    ]
}

/// What rpm says of a root. `paths` and `names` are what to query its rpmdb for.
pub fn answers(root: &Path, paths: &[String], names: &[String]) -> Vec<View> {
    let ask = |options: &[&str], about: &[String]| {
        let output = rpm_on(root).args(options).args(about).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).replace(root.to_str().unwrap(), "");
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    vec![
        ("rpm -qa", ask(&["-qa", "--scripts", "--triggers", "--filetriggers", "--changelog"], &[])),
        ("rpm -ql", ask(&["-qal", "--state", "--provides", "--requires"], &[])),
        ("rpm -qc", ask(&["-qac"], &[])),
        ("rpm -qf", ask(&["-qf"], paths)),
        ("rpm --whatprovides", ask(&["-q", "--whatprovides"], names)),
        ("rpm --whatrequires", ask(&["-q", "--whatrequires"], names)),
        ("rpm -V", ask(&["-Va", "--nodeps", "--noscripts"], &[])),
    ]
}

/// What is in one but not in the other, a line each.
pub fn differences(ours: &[View], theirs: &[View]) -> Vec<String> {
    let only = |a: &[String], b: &[String], whose: &str| {
        let b: BTreeSet<&String> = b.iter().collect();
        a.iter().filter(|line| !b.contains(line)).map(|line| format!("{whose}: {line}")).collect::<Vec<_>>()
    };
    let mut differences = Vec::new();
    for ((view, ours), (_, theirs)) in ours.iter().zip(theirs).filter(|(a, b)| a != b) {
        let mut lines = [only(ours, theirs, "only strata"), only(theirs, ours, "only rpm")].concat();
        if lines.is_empty() {
            lines.push(format!("strata:\n{}\nrpm:\n{}", ours.join("\n"), theirs.join("\n")));
        }
        differences.extend(lines.into_iter().map(|line| format!("{view}: {line}")));
    }
    differences
}

fn rpmdb(root: &Path) -> Option<Connection> {
    let file = root.join(RPMDB.trim_start_matches('/')).join("rpmdb.sqlite");
    file.exists().then(|| Connection::open(file).unwrap())
}

/// Every row of every table; headers as their digests.
fn tables(root: &Path) -> Vec<String> {
    let Some(rpmdb) = rpmdb(root) else { return Vec::new() };
    let mut rows = rows(&rpmdb, "SELECT 'Packages', blob, hnum FROM Packages");
    for table in TABLES {
        rows.extend(self::rows(&rpmdb, &format!("SELECT '{table}', key, hnum, idx FROM '{table}'")));
    }
    rows
}

/// The keys of a table.
pub fn keys(root: &Path, table: &str) -> Vec<String> {
    rpmdb(root).map(|rpmdb| rows(&rpmdb, &format!("SELECT DISTINCT key FROM '{table}'"))).unwrap_or_default()
}

fn rows(rpmdb: &Connection, query: &str) -> Vec<String> {
    let mut statement = rpmdb.prepare(query).unwrap();
    let columns = statement.column_count();
    let row = |row: &rusqlite::Row| {
        let values = (0..columns).map(|column| row.get(column).map(text));
        Ok(values.collect::<rusqlite::Result<Vec<_>>>()?.join(" "))
    };
    let mut rows: Vec<String> = statement.query_map([], row).unwrap().map(Result::unwrap).collect();
    rows.sort();
    rows
}

fn text(value: Value) -> String {
    match value {
        Value::Blob(bytes) => hex::encode(Sha256::digest(bytes)),
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}
