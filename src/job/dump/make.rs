//! The files of a dump: each tool run, its output sent to every storage, made visible and read back.
//!
//! What ends well in three places is a file: the tool exited with zero, the inspector found its trailer or table of
//! contents, and the storage gives back what was sent. A newcomer would judge by the stream's end alone; a tool that was
//! killed ends its output too.

use std::{
    fs::File,
    path::Path,
    sync::atomic::{AtomicU64, Ordering},
};

use futures_util::{StreamExt, TryStreamExt, future::join_all, stream as futures};

use super::{places::Places, plan, scratch, stream_failure, unless_stopped};
use crate::{
    dump::{Dumper, Making, Output, Source},
    error::ExitCode,
    job::{Context, progress::Gauge},
    process::Stop,
    record::{Artifact, ErrorClass, Failure, Role},
    storage::{self, Storage, Upload},
    stream::{self, Inspect, Meter, Opener, Pending, Recipe},
};

/// How many parts are on their way at once.
const PARTS_AT_ONCE: usize = 2;

/// What making the files of one dump needs.
pub(super) struct Make<'a> {
    pub(super) context: &'a Context,
    pub(super) stop: &'a Stop,
    pub(super) dumper: &'a Dumper,
    pub(super) source: &'a Source,
    pub(super) places: &'a Places,
    pub(super) recipe: &'a Recipe,
    pub(super) opener: Option<&'a Opener>,
    pub(super) directory: &'a str,
    pub(super) lock_until: Option<chrono::DateTime<chrono::Utc>>,
    pub(super) gauge: Gauge,
    pub(super) meter: Meter,
    /// Bytes that tools wrote to the scratch directory.
    pub(super) staged: AtomicU64,
}

/// The files of one making, in the order of their names, and what people should know of them.
pub(super) struct Files {
    pub(super) artifacts: Vec<Artifact>,
    pub(super) warnings: Vec<String>,
}

/// A file on its way.
struct Sending<R> {
    role: Role,
    name: String,
    source: R,
    inspect: Option<Box<dyn Inspect>>,
}

impl Make<'_> {
    /// Makes the files of one making.
    pub(super) async fn files(&self, making: Making, scratch: &Path) -> Result<Files, Failure> {
        match making.output {
            Output::Stdout => Ok(Files { artifacts: vec![self.streamed(making).await?], warnings: Vec::new() }),
            Output::File(_) | Output::Directory(_) => self.staged(making, scratch).await,
        }
    }

    /// Bytes moved so far.
    pub(super) fn moved(&self) -> u64 {
        self.meter.raw() + self.staged.load(Ordering::Relaxed)
    }

    async fn streamed(&self, making: Making) -> Result<Artifact, Failure> {
        let Making { role, name, command, inspect, .. } = making;
        let name = self.full_name(&name);
        let uploads = self.uploads(&name).await?;
        let storing = |output: File, activity| async move {
            tokio::select! {
                stored = stream::store(output, self.recipe, inspect, uploads, &self.meter, self.stop) => stored,
                never = self.gauge.watch(|| self.moved(), Some(&activity)) => never,
            }
        };
        let (finished, stored) = self.context.piped(role.as_str(), &command, storing).await?;
        let pending = stored.map_err(|problem| stream_failure(self.context, problem))?;
        if !finished.ok() {
            pending.discard().await;
            return Err(self.explain(role, &finished));
        }
        self.publish(role, name, pending).await
    }

    async fn staged(&self, making: Making, scratch: &Path) -> Result<Files, Failure> {
        let role = making.role;
        let before = self.staged.load(Ordering::Relaxed);
        let staging = self.context.follow(role.as_str(), &making.command, |_| {});
        let look = || {
            self.staged.store(before.max(scratch::used(scratch)), Ordering::Relaxed);
            self.moved()
        };
        let finished = tokio::select! {
            finished = staging => finished?,
            never = self.gauge.watch(look, None) => never,
        };
        if !finished.ok() {
            return Err(self.explain(role, &finished));
        }
        let checking = self.dumper.check_staged(self.source, &making, self.stop);
        let warnings = unless_stopped(self.context, self.stop, checking).await??;
        let sending: Vec<_> = staged_files(making)?.into_iter().map(|file| self.send(file)).collect();
        let sending = futures::iter(sending).buffer_unordered(PARTS_AT_ONCE);
        let mut artifacts: Vec<Artifact> = tokio::select! {
            sent = sending.try_collect() => sent?,
            never = self.gauge.watch(|| self.moved(), None) => never,
        };
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Files { artifacts, warnings })
    }

    fn explain(&self, role: Role, finished: &crate::process::Finished) -> Failure {
        if self.stop.is_stopped() {
            return self.context.stopped();
        }
        self.dumper.explain(role, &finished.ending, &finished.tail)
    }

    /// Sends a staged file.
    async fn send(&self, file: Sending<std::path::PathBuf>) -> Result<Artifact, Failure> {
        let Sending { role, name, source, inspect } = file;
        let name = self.full_name(&name);
        let opened = File::open(&source).map_err(|error| scratch::unusable(&source, &error))?;
        let uploads = self.uploads(&name).await?;
        let stored = stream::store(opened, self.recipe, inspect, uploads, &self.meter, self.stop).await;
        self.publish(role, name, stored.map_err(|problem| stream_failure(self.context, problem))?).await
    }

    fn full_name(&self, name: &str) -> String {
        let encryption = self.recipe.sealer.as_ref().map(stream::Sealer::encryption);
        plan::file_name(name, self.recipe.compression, encryption.as_ref())
    }

    /// Begins a file in every storage that is left.
    async fn uploads(&self, name: &str) -> Result<Vec<(String, Upload)>, Failure> {
        let path = format!("{}/{name}", self.directory);
        let storages = self.places.alive();
        let beginning = join_all(storages.iter().map(|storage| storage.create(&path, self.lock_until)));
        let begun = unless_stopped(self.context, self.stop, beginning).await?;
        let mut uploads = Vec::with_capacity(storages.len());
        for (storage, upload) in storages.iter().zip(begun) {
            match upload {
                Ok(upload) => uploads.push((storage.name().to_owned(), upload)),
                Err(problem) => self.places.fail(storage.name(), problem.into()),
            }
        }
        self.places.some_left()?;
        Ok(uploads)
    }

    /// Makes a file visible where it arrived, and reads it back from there.
    async fn publish(&self, role: Role, name: String, mut pending: Pending) -> Result<Artifact, Failure> {
        if let Some(complaint) = pending.complaint.take() {
            pending.discard().await;
            return Err(incomplete(&name, &complaint));
        }
        let (raw, stored, hmac) = (pending.raw.clone(), pending.stored.clone(), pending.hmac.clone());
        let path = format!("{}/{name}", self.directory);
        for (storage, upload) in &pending.uploads {
            if upload.is_ok() {
                self.places.claim(storage, &path);
            }
        }
        for (storage, published) in pending.publish().await {
            if let Err(problem) = published {
                if matches!(problem, storage::Error::Refused { .. }) {
                    self.places.disclaim(&storage, &path);
                }
                self.places.fail(&storage, problem.into());
            }
        }
        self.places.some_left()?;
        let artifact = Artifact { role, name, raw, stored, hmac };
        self.read_back(&artifact).await?;
        Ok(artifact)
    }

    async fn read_back(&self, artifact: &Artifact) -> Result<(), Failure> {
        let path = format!("{}/{}", self.directory, artifact.name);
        let storages = self.places.alive();
        let checks = storages.iter().map(|storage| check(storage, &path, artifact, self.opener, self.stop));
        for (storage, checked) in storages.iter().zip(join_all(checks).await) {
            match checked {
                Ok(()) => {}
                Err(stream::Error::Stopped) => return Err(self.context.stopped()),
                Err(problem) => self.places.fail(storage.name(), stream_failure(self.context, problem)),
            }
        }
        self.places.some_left()
    }
}

/// Reads a file of a copy to its end.
///
/// # Errors
/// When it is not there, cannot be read, or is not what was written.
pub(in crate::job) async fn check(
    storage: &Storage,
    path: &str,
    artifact: &Artifact,
    opener: Option<&Opener>,
    stop: &Stop,
) -> Result<(), stream::Error> {
    let reading = async {
        let reader: Result<storage::Reader, storage::Error> = storage.read(path).await;
        stream::check(reader?, artifact, opener, stop).await
    };
    tokio::select! {
        checked = reading => checked,
        () = stop.stopped() => Err(stream::Error::Stopped),
    }
}

fn staged_files(making: Making) -> Result<Vec<Sending<std::path::PathBuf>>, Failure> {
    let Making { role, name, output, inspect, .. } = making;
    match output {
        Output::Stdout => Ok(Vec::new()),
        Output::File(source) => Ok(vec![Sending { role, name, source, inspect }]),
        Output::Directory(directory) => {
            let files = scratch::files(&directory)?;
            let part = |(file, source)| Sending { role, name: format!("{name}/{file}"), source, inspect: None };
            Ok(files.into_iter().map(part).collect())
        }
    }
}

fn incomplete(name: &str, complaint: &str) -> Failure {
    Failure {
        class: ErrorClass::Integrity,
        exit: ExitCode::VerificationFailed,
        message: format!("the tool ended well, but `{name}` is not whole: {complaint}"),
        remedy: Some("Look at the run's log; do not count on what this tool writes until it is understood.".to_owned()),
    }
}
