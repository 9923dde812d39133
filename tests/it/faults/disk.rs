//! The disk is full, and has room again later.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use tokio::time::sleep;

use super::{ALONE, assert_ready, listen, not_ready};
use crate::harness::trial::trial;
use crate::harness::{kafka, open_folder};
use crate::test_stream::TestStream;

/// The tests, for main.
pub fn trials() -> Vec<Trial> {
    vec![trial!(ALONE, a_full_disk_pauses_the_stream)]
}

async fn a_full_disk_pauses_the_stream() {
    let disk = SmallDisk::mount();
    let stream = TestStream::new(kafka::shared().await, 1).await;
    stream.configure(&disk.path().join("data"));
    let url = listen();
    let worker = stream.worker_at(&url, "");
    stream.send(0..100).await;
    stream.drained(100, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;

    disk.fill();
    stream.send(100..300).await;
    let reason = not_ready(&url, &worker).await;
    assert!(reason.contains("storage"), "/readyz says {reason} while the disk is full");
    sleep(Duration::from_secs(3)).await;
    let committed = stream.committed().await;
    assert!(committed < 300, "batches were committed without their files");
    stream.audit("on a full disk").await;
    disk.relieve();

    stream.drained(300, Duration::from_secs(60)).await;
    assert_ready(&url, &worker).await;
    stream.assert_exactly_once(300, 0).await;
}

/// A file system of one megabyte in memory.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount() -> Self {
        let folder = open_folder();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(folder.path()).output();
        let output = mounted.expect("this test needs `mount`");
        let reason = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this test mounts a tmpfs, which takes root: {reason}");
        Self { folder }
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn ballast(&self) -> std::path::PathBuf {
        self.path().join("ballast")
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.ballast()).unwrap();
        while file.write_all(&[0; 512]).is_ok() {}
    }

    fn relieve(&self) {
        std::fs::remove_file(self.ballast()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a worker that is just ending may still hold a file open.
        Command::new("umount").arg("-l").arg(self.folder.path()).status().ok();
    }
}
