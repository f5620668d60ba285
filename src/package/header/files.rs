//! The file list of a header: parallel arrays, one item per file.

use anyhow::{Context, Result};
use rpm::IndexTag as Tag;

use super::blob::Blob;
use super::{FileEntry, same_length};

/// See [`super::Header::files`]. `signatures` are those of all files, or none.
pub fn files(header: &Blob, signatures: &[&str]) -> Result<Vec<FileEntry>> {
    let names = header.texts(Tag::RPMTAG_BASENAMES)?;
    let directories = header.texts(Tag::RPMTAG_DIRNAMES)?;
    let column = Columns { header, files: names.len() };

    let directory = column.required(Tag::RPMTAG_DIRINDEXES)?;
    let mode = column.required(Tag::RPMTAG_FILEMODES)?;
    let user = column.texts(Tag::RPMTAG_FILEUSERNAME)?;
    let group = column.texts(Tag::RPMTAG_FILEGROUPNAME)?;
    let size = column.sizes()?;
    let mtime = column.required(Tag::RPMTAG_FILEMTIMES)?;
    let digest = column.texts(Tag::RPMTAG_FILEDIGESTS)?;
    let linkto = column.texts(Tag::RPMTAG_FILELINKTOS)?;
    let flags = column.optional(Tag::RPMTAG_FILEFLAGS)?;
    let verify = column.optional(Tag::RPMTAG_FILEVERIFYFLAGS)?;
    let device = column.optional(Tag::RPMTAG_FILEDEVICES)?;
    let inode = match header.find(Tag::RPMTAG_FILEINODES) {
        Some(_) => column.required(Tag::RPMTAG_FILEINODES)?,
        // no file is another's hard link
        None => (0..u32::try_from(names.len()).context("counting files")?).collect(),
    };
    let rdev = column.optional(Tag::RPMTAG_FILERDEVS)?;
    let langs = column.texts(Tag::RPMTAG_FILELANGS)?;
    let color = column.optional(Tag::RPMTAG_FILECOLORS)?;
    let caps = column.texts(Tag::RPMTAG_FILECAPS)?;
    if !signatures.is_empty() {
        same_length(names.len(), [signatures.len()], "signed files")?;
    }

    let entry = |(index, name): (usize, &str)| {
        let directory = directories.get(directory[index] as usize).with_context(|| {
            format!("file {name} is in directory {} of {}", directory[index], directories.len())
        })?;
        Ok(FileEntry {
            index: u32::try_from(index).context("counting files")?,
            path: [directory, name].concat(),
            mode: mode[index],
            user: user[index].to_owned(),
            group: group[index].to_owned(),
            size: size[index],
            mtime: mtime[index],
            digest: digest[index].to_owned(),
            linkto: linkto[index].to_owned(),
            flags: flags[index],
            verify: verify[index],
            device: device[index],
            inode: inode[index],
            rdev: rdev[index],
            langs: langs[index].to_owned(),
            color: color[index],
            caps: caps[index].to_owned(),
            ima: signatures.get(index).copied().unwrap_or_default().to_owned(),
        })
    };
    names.iter().copied().enumerate().map(entry).collect()
}

/// Access to arrays that must have one item per file, if they are there at all.
struct Columns<'h> {
    header: &'h Blob,
    files: usize,
}

impl<'h> Columns<'h> {
    fn required(&self, tag: Tag) -> Result<Vec<u32>> {
        let column = self.header.u32s(tag)?;
        same_length(self.files, [column.len()], "files").with_context(|| format!("reading {tag}"))?;
        Ok(column)
    }

    /// Zeros when the tag is absent.
    fn optional(&self, tag: Tag) -> Result<Vec<u32>> {
        match self.header.find(tag) {
            Some(_) => self.required(tag),
            None => Ok(vec![0; self.files]),
        }
    }

    /// Empty texts when the tag is absent.
    fn texts(&self, tag: Tag) -> Result<Vec<&'h str>> {
        if self.header.find(tag).is_none() {
            return Ok(vec![""; self.files]);
        }
        let column = self.header.texts(tag)?;
        same_length(self.files, [column.len()], "files").with_context(|| format!("reading {tag}"))?;
        Ok(column)
    }

    /// A package with a file of 4 GiB or more has the 64-bit tag, others the 32-bit one.
    fn sizes(&self) -> Result<Vec<u64>> {
        let sizes = match self.header.find(Tag::RPMTAG_LONGFILESIZES) {
            Some(_) => self.header.numbers(Tag::RPMTAG_LONGFILESIZES)?,
            None => self.header.numbers(Tag::RPMTAG_FILESIZES)?,
        };
        same_length(self.files, [sizes.len()], "files").context("reading RPMTAG_FILESIZES")?;
        Ok(sizes)
    }
}
