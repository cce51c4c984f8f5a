//! What all runs share: a private PostgreSQL, and a small file system for the full-disk fault. Used by `main` and `run`.
//! Dropping it unmounts the file system.

use std::path::PathBuf;
use std::process::Command;
use std::rc::Rc;

use tokio::sync::Mutex;

use crate::support::postgres::{Database, Postgres, Settings, connect};

/// Enough for an empty database and the rows of a few minutes.
const DISK_MEGABYTES: u32 = 64;

pub(crate) struct TestBed {
    /// The server of all runs that do not need a separate one.
    pub(crate) postgres: Rc<Mutex<Postgres>>,
    disk: Mutex<Option<Disk>>,
}

impl TestBed {
    pub(crate) async fn prepare() -> Self {
        Self { postgres: Rc::new(Mutex::new(Postgres::start().await)), disk: Mutex::default() }
    }

    /// PostgreSQL runs with fsync.
    pub(crate) async fn durable() -> Self {
        Self {
            postgres: Rc::new(Mutex::new(
                Postgres::start_with(&Settings { durable: true, ..Settings::default() }).await,
            )),
            disk: Mutex::default(),
        }
    }

    /// A database on a small disk, or `None` if the process may not mount one.
    pub(crate) async fn small_database(&self) -> Option<(Database, PathBuf)> {
        let postgres = self.postgres.lock().await;
        let mut disk = self.disk.lock().await;
        if disk.is_none() {
            let mounted = Disk::mount()?;
            let admin = connect(&postgres.url("postgres")).await.expect("the server is available");
            let location = mounted.path.join("tables");
            let statement = format!("create tablespace small location '{}'", location.display());
            admin
                .batch_execute(&statement)
                .await
                .expect("the directory is empty and owned by postgres");
            *disk = Some(mounted);
        }
        let path = disk.as_ref().expect("mounted above").path.clone();
        Some((postgres.create_database_in("small", None).await, path))
    }

    /// Drops the database of a completed run.
    pub(crate) async fn drop_database(&self, name: &str) {
        let postgres = self.postgres.lock().await;
        let dropped = async {
            let admin = connect(&postgres.url("postgres")).await?;
            admin.batch_execute(&format!("drop database {name} with (force)")).await
        };
        if let Err(error) = dropped.await {
            eprintln!("cannot drop database {name}: {error}");
        }
    }
}

struct Disk {
    path: PathBuf,
}

impl Disk {
    fn mount() -> Option<Self> {
        let path = std::env::temp_dir().join(format!("tributary-disk-{}", std::process::id()));
        std::fs::create_dir(&path).ok()?;
        let script = format!(
            "mount -t tmpfs -o size={DISK_MEGABYTES}m,mode=755 tmpfs \"$0\" && mkdir \"$0/tables\" \
             && chown postgres \"$0/tables\" && chmod 700 \"$0/tables\""
        );
        let mounted = Command::new("sh").args(["-c", &script]).arg(&path).output().ok()?;
        let disk = Self { path };
        mounted.status.success().then_some(disk)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: PostgreSQL may have open files until it exits.
        drop(Command::new("umount").arg("-l").arg(&self.path).output());
        drop(std::fs::remove_dir(&self.path));
    }
}
