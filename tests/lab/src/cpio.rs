//! Writes initramfs archives: the `newc` format of the Linux kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`. Archives one after the other are one.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// A directory, in the mode field.
const DIRECTORY: u32 = 0o040_000;
/// A character device.
const CHARACTER_DEVICE: u32 = 0o020_000;
/// A regular file.
const FILE: u32 = 0o100_000;
/// A symbolic link; its target is the content.
const SYMLINK: u32 = 0o120_000;

/// Fields and contents start at multiples of this.
const ALIGNMENT: u64 = 4;

/// An archive that is being written. All files are root's.
#[derive(Debug)]
pub struct Archive<W> {
    writer: W,
    written: u64,
    entries: u32,
}

impl<W: Write> Archive<W> {
    /// Starts an archive.
    pub fn new(writer: W) -> Self {
        Self { writer, written: 0, entries: 0 }
    }

    /// A directory. Its parents must come before it.
    ///
    /// # Errors
    /// When writing fails.
    pub fn directory(&mut self, path: &str) -> Result<()> {
        self.entry(path, DIRECTORY | 0o755, 0, (0, 0), &mut io::empty())
    }

    /// A file with these contents.
    ///
    /// # Errors
    /// When writing fails, or it is larger than 4 GiB.
    pub fn file(&mut self, path: &str, permissions: u32, contents: &[u8]) -> Result<()> {
        let length = u32::try_from(contents.len()).with_context(|| format!("{path} is too large"))?;
        self.entry(path, FILE | permissions, length, (0, 0), &mut &contents[..])
    }

    /// A copy of a file of the host, with its permissions.
    ///
    /// # Errors
    /// When reading or writing fails, or it is larger than 4 GiB.
    pub fn copy(&mut self, path: &str, from: &Path) -> Result<()> {
        let mut file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
        let metadata = file.metadata().with_context(|| format!("examining {}", from.display()))?;
        let length = u32::try_from(metadata.len()).with_context(|| format!("{path} is too large"))?;
        let mode = FILE | (metadata.permissions().mode() & 0o777);
        self.entry(path, mode, length, (0, 0), &mut file)
    }

    /// A symbolic link.
    ///
    /// # Errors
    /// When writing fails.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        let length = u32::try_from(target.len()).with_context(|| format!("{path} is too long"))?;
        self.entry(path, SYMLINK | 0o777, length, (0, 0), &mut target.as_bytes())
    }

    /// A character device, root's alone.
    ///
    /// # Errors
    /// When writing fails.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(path, CHARACTER_DEVICE | 0o600, 0, (major, minor), &mut io::empty())
    }

    /// Ends the archive and returns the writer.
    ///
    /// # Errors
    /// When writing fails.
    pub fn finish(mut self) -> Result<W> {
        self.entry("TRAILER!!!", 0, 0, (0, 0), &mut io::empty())?;
        self.writer.flush().context("writing the archive")?;
        Ok(self.writer)
    }

    fn entry(
        &mut self,
        path: &str,
        mode: u32,
        length: u32,
        device: (u32, u32),
        contents: &mut dyn Read,
    ) -> Result<()> {
        self.entries += 1;
        let name_length = u32::try_from(path.len() + 1).with_context(|| format!("{path} is too long"))?;
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        header.push_str(path);
        header.push('\0');
        self.write(header.as_bytes())?;
        self.align()?;
        let copied = io::copy(contents, &mut self.writer).with_context(|| format!("archiving {path}"))?;
        anyhow::ensure!(copied == u64::from(length), "{path} changed its size while it was archived");
        self.written += copied;
        self.align()
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.writer.write_all(bytes).context("writing the archive")?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn align(&mut self) -> Result<()> {
        let short = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.write(&[0; ALIGNMENT as usize][..short as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_aligned_and_counted() {
        let mut archive = Archive::new(Vec::new());
        archive.directory("d").unwrap();
        archive.file("d/f", 0o644, b"hello").unwrap();
        let bytes = archive.finish().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        // The directory: header of 110, "d\0", no padding; then the file.
        assert_eq!(&text[..14], "07070100000001");
        assert_eq!(&text[112..126], "07070100000002");
        assert_eq!(&text[126..134], "000081a4");
        assert!(text.contains("d/f\0\0\0hello\0\0\0"));
        assert!(text.contains("TRAILER!!!\0"));
    }
}
