//! The content-addressed store on disk.
//!
//! ```text
//! STORE/
//!   CACHEDIR.TAG
//!   rpms/HEX.rpm            packages, by sha256 of the file; verified (digest, signature) before they get here
//!   payloads/HEX            payloads of packages, decompressed (cpio), by sha256 of the compressed payload; checked
//!                           again, file by file, whenever they are read
//!   repodata/HEX            repository metadata as fetched, by sha256 of the file
//!   parsed/HEX.VERSION      the same as later runs read them, by the document's checksum and the version of the form;
//!                           made again whenever one is missing, damaged or of another version
//!   seen/HEX                what was the newest repomd.xml of a repository, by sha256 of its URLs (JSON)
//!   keys/HEX                OpenPGP keys fetched from the network, by sha256 of their URL
//!   images/                 an OCI image layout; reference names are STREAM/LAYER:VERSION and STREAM/LAYER
//!   places.json             where in registries these images are known to be (`image::places`)
//!   layers/KEY/             an extracted layer, KEY = inputs digest, or digest of an image given as a base
//!     tree/root/            its files: an overlayfs upper directory (userxattr), whiteouts included
//!     layer.json            which layer is below
//!   steps/COMMAND/          runs of commands of builds, to be reused on the same files (`build::reuse`); by digest
//!                           of the command
//!   running/NAME            one for each strata that has the store open, locked (flock(2)) as long as that lives
//!   tmp/                    unfinished work
//! ```
//!
//! Files are written below `tmp/`, synced (but for payloads and what is parsed) and renamed into place, so what has a
//! final name is complete.
//! Everything belongs to the user who runs strata; files of extracted layers to their subordinate ids, so
//! `layers/` is only touched inside strata's own user namespace ([`crate::sandbox::enter_namespace`]).
//!
//! # What may be deleted while others work
//!
//! The time of a file is that of its last use: whoever goes to use what is there already [takes](take) it first, which
//! says so. Who opens a store leaves a file in `running/` that is older than all that this strata makes or takes. So
//! what was last used before the oldest of these files was made ([`Store::horizon`]) is in nobody's hands. A deleter
//! looks at the time and deletes under an exclusive lock, takers set it under a shared one, for a moment each: nobody
//! takes what is gone, and nobody waits for a build. What a deleter finds unused may be taken and kept; what it deletes
//! is made or fetched again by whoever misses it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use rustix::fs::{AtFlags, CWD, FlockOperation, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use tempfile::{NamedTempFile, TempDir, TempPath};

use crate::digest::Digest;
use crate::repo::compact;

/// An open store.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
    running: Option<Arc<NamedTempFile>>,
}

impl Store {
    /// Opens the store at `root`, making it if there is none.
    pub fn open(root: &Path) -> Result<Self> {
        for dir in DIRECTORIES {
            fs::create_dir_all(root.join(dir))
                .with_context(|| format!("making the store {}", root.display()))?;
        }
        let tag = root.join("CACHEDIR.TAG");
        if !tag.exists() {
            // https://bford.info/cachedir/
            fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55\n# strata's store\n")
                .with_context(|| format!("writing {}", tag.display()))?;
        }
        let root = root.canonicalize().with_context(|| format!("opening the store {}", root.display()))?;
        let running = running(&root).with_context(|| format!("opening the store {}", root.display()))?;
        Ok(Self { root, running: running.map(Arc::new) })
    }

    /// A new store in the directory `root` that shares this one's packages and keys, and nothing else.
    pub fn sharing_packages(&self, root: &Path) -> Result<Self> {
        for dir in ["rpms", "keys"] {
            std::os::unix::fs::symlink(self.root.join(dir), root.join(dir))
                .with_context(|| format!("making the store {}", root.display()))?;
        }
        Self::open(root)
    }

    /// What was last used before this is in nobody's hands: the moment when the oldest strata at work with this store
    /// began, or this one if there is no other. Forgets those that were killed.
    pub fn horizon(&self) -> Result<SystemTime> {
        let context = || format!("looking who uses the store {}", self.root.display());
        // what was made before is before: the clock of files stands still for milliseconds
        std::thread::sleep(CLOCK_TICK);
        let now = self.temp_file()?.as_file().metadata().and_then(|meta| meta.modified());
        let mut horizon = now.with_context(context)?;
        let own = self.running.as_ref().map(|file| file.path());
        for entry in fs::read_dir(self.root.join("running")).with_context(context)? {
            let path = entry.with_context(context)?.path();
            if own == Some(path.as_path()) {
                continue;
            }
            // one that is gone ended just now
            let Ok(file) = File::open(&path) else { continue };
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => drop(fs::remove_file(&path)),
                Err(_) => {
                    horizon = horizon.min(file.metadata().and_then(|m| m.modified()).with_context(context)?)
                }
            }
        }
        Ok(horizon)
    }

    /// See [`take`].
    pub fn take(&self, path: &Path) -> Result<bool> {
        take(&self.root, path)
    }

    /// Its directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the package with this digest is, or would be.
    pub fn rpm(&self, sha256: &Digest) -> PathBuf {
        self.root.join("rpms").join(format!("{}.rpm", sha256.hex()))
    }

    /// Where the decompressed payload is, or would be, whose compressed form has this digest.
    pub fn payload(&self, compressed: &Digest) -> PathBuf {
        self.root.join("payloads").join(compressed.hex())
    }

    /// Where repository metadata with this digest is, or would be.
    pub fn repodata(&self, sha256: &Digest) -> PathBuf {
        self.root.join("repodata").join(sha256.hex())
    }

    /// Where the parsed form is, or would be, of the document whose checksum has these hex digits.
    pub fn parsed(&self, checksum: &str) -> PathBuf {
        self.root.join("parsed").join(format!("{checksum}.{}", compact::VERSION))
    }

    /// Whether a file of `parsed/` is of the current version, and its document is there.
    pub fn has_document_of(&self, parsed: &str) -> bool {
        let Some((checksum, version)) = parsed.rsplit_once('.') else { return false };
        version == compact::VERSION.to_string() && self.root.join("repodata").join(checksum).exists()
    }

    /// Where it is remembered what a repository's newest repomd.xml was, by the digest of its URLs.
    pub fn seen(&self, urls: &Digest) -> PathBuf {
        self.root.join("seen").join(urls.hex())
    }

    /// Where the OpenPGP key from the URL with this digest is, or would be.
    pub fn key(&self, url: &Digest) -> PathBuf {
        self.root.join("keys").join(url.hex())
    }

    /// The OCI layout with all images.
    pub fn images(&self) -> PathBuf {
        self.root.join("images")
    }

    /// Where it is noted which registries have its images.
    pub fn places(&self) -> PathBuf {
        self.root.join("places.json")
    }

    /// The extracted layer with this inputs digest.
    pub fn layer(&self, key: &Digest) -> PathBuf {
        self.root.join("layers").join(key.hex())
    }

    /// The runs kept of the command with this digest.
    pub fn steps(&self, command: &Digest) -> PathBuf {
        self.root.join("steps").join(command.hex())
    }

    /// A new directory below `tmp/`, deleted when dropped.
    pub fn temp_dir(&self, prefix: &str) -> Result<TempDir> {
        tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(self.root.join("tmp"))
            .with_context(|| format!("making a work directory in {}", self.root.join("tmp").display()))
    }

    /// The file below `tmp/` for what is to have this checksum, with what an earlier run brought of it. As long as another
    /// run is at it, a new file.
    pub fn partial_file(&self, checksum: &str) -> Result<NamedTempFile> {
        let path = self.root.join("tmp").join(format!("{checksum}.partial"));
        let context = || format!("opening {}", path.display());
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.with_context(context)?;
        let is_mine = rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
        // whoever had it may have completed it, and given it another name
        let is_there = || Ok::<_, io::Error>(fs::metadata(&path)?.ino() == file.metadata()?.ino());
        match is_mine && is_there().unwrap_or(false) && self.take(&path)? {
            true => Ok(NamedTempFile::from_parts(file, TempPath::try_from_path(path)?)),
            false => self.temp_file(),
        }
    }

    /// A new file below `tmp/`, deleted when dropped; give it to [`persist`] when it is complete.
    pub fn temp_file(&self) -> Result<NamedTempFile> {
        NamedTempFile::new_in(self.root.join("tmp"))
            .with_context(|| format!("making a file in {}", self.root.join("tmp").display()))
    }
}

const DIRECTORIES: [&str; 11] =
    ["rpms", "payloads", "repodata", "parsed", "seen", "keys", "images", "layers", "steps", "running", "tmp"];

/// The longest that the clock of files stands still: a tick of a kernel that has a hundred a second.
const CLOCK_TICK: Duration = Duration::from_millis(10);

/// Says that this process uses the store; none where nobody can write, nor delete.
fn running(root: &Path) -> Result<Option<NamedTempFile>> {
    let file = match NamedTempFile::new_in(root.join("tmp")) {
        Err(e) if matches!(e.kind(), io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        file => file?,
    };
    // locked before it is where others look for it
    rustix::fs::flock(&file, FlockOperation::LockExclusive)?;
    let path = root.join("running").join(file.path().file_name().unwrap_or_default());
    let (file, old) = file.into_parts();
    fs::rename(&old, &path)?;
    // what has that name now is gone
    let _ = old.keep();
    Ok(Some(NamedTempFile::from_parts(file, TempPath::try_from_path(path)?)))
}

/// Says that what is at `path`, in the store or layout `holder`, is used from now on; false if it is not there.
pub fn take(holder: &Path, path: &Path) -> Result<bool> {
    let context = || format!("using {}", path.display());
    let lock = File::open(holder).with_context(context)?;
    rustix::fs::flock(&lock, FlockOperation::LockShared).with_context(context)?;
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
        Err(Errno::NOENT) => Ok(false),
        done => done.map(|()| true).with_context(context),
    }
}

/// Keeps takers of what is in the store or layout `holder` waiting until dropped; not for long.
pub fn lock(holder: &Path) -> Result<File> {
    let context = || format!("locking {}", holder.display());
    let dir = File::open(holder).with_context(context)?;
    rustix::fs::flock(&dir, FlockOperation::LockExclusive).with_context(context)?;
    Ok(dir)
}

/// Syncs a finished temporary file and gives it its final name (mode 0644), replacing what has it.
pub fn persist(file: NamedTempFile, target: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let context = || format!("writing {}", target.display());
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644)).with_context(context)?;
    file.as_file().sync_all().with_context(context)?;
    file.persist(target).map_err(|e| e.error).with_context(context)?;
    Ok(())
}

/// Writes `bytes` to `target` so that a reader sees all of them or the file that was there before.
pub fn write_atomically(target: &Path, bytes: &[u8]) -> Result<()> {
    let dir = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let context = || format!("writing {}", target.display());
    let mut file = NamedTempFile::new_in(dir).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    persist(file, target)
}
