//! Storage that breaks at operation n.
//!
//! A [`FaultyStore`] counts every operation on the store behind it. The nth one
//! fails as the [`Fault`] says; whether later ones work again decides whether the
//! test sees a passing trouble or the death of the process.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// What happens at operation n.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is not done.
    Refused,
    /// It is done, but the answer is lost. (A read has no effect to keep: it is refused.)
    AnswerLost,
}

/// What happens after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Afterwards {
    /// Nothing works any more: the process is dead.
    Dead,
    /// Everything works.
    Fine,
}

/// When a store breaks, and whether it did.
#[derive(Debug)]
pub struct Countdown {
    at: usize,
    fault: Fault,
    afterwards: Afterwards,
    count: AtomicUsize,
    hit: AtomicBool,
    /// Rings when operation n was reached.
    bell: Notify,
    what: Mutex<String>,
}

/// What becomes of one operation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    AnswerLost,
}

impl Countdown {
    /// Breaks at operation `at`, counted from 1.
    pub fn new(at: usize, fault: Fault, afterwards: Afterwards) -> Arc<Self> {
        Arc::new(Self {
            at,
            fault,
            afterwards,
            count: AtomicUsize::new(0),
            hit: AtomicBool::new(false),
            bell: Notify::new(),
            what: Mutex::default(),
        })
    }

    /// Whether operation n was ever reached.
    pub fn hit(&self) -> bool {
        self.hit.load(SeqCst)
    }

    /// Waits until operation n is reached.
    pub async fn reached(&self) {
        self.bell.notified().await;
    }

    /// The operation that failed.
    pub fn what(&self) -> String {
        self.what.lock().clone()
    }

    /// Ends the process that holds the store, if it has not ended yet.
    pub fn kill(&self) {
        self.count.store(usize::MAX / 2, SeqCst);
    }

    fn enter(&self, verb: &str, path: &str, writes: bool) -> Result<Fate> {
        let count = self.count.fetch_add(1, SeqCst) + 1;
        let killed = count > usize::MAX / 2;
        if count == self.at {
            self.hit.store(true, SeqCst);
            *self.what.lock() = format!("operation {count}, {verb} {path}");
            self.bell.notify_one();
            return match self.fault {
                Fault::AnswerLost if writes => Ok(Fate::AnswerLost),
                _ => Err(broken(verb, path)),
            };
        }
        if killed || count > self.at && self.afterwards == Afterwards::Dead {
            return Err(broken(verb, path));
        }
        Ok(Fate::Done)
    }
}

impl Fate {
    fn answer<T>(self, result: Result<T>, verb: &str, path: &str) -> Result<T> {
        match self {
            Fate::Done => result,
            Fate::AnswerLost => result.and_then(|_| Err(broken(verb, path))),
        }
    }
}

fn broken(verb: &str, path: &str) -> object_store::Error {
    object_store::Error::Generic {
        store: "faulty",
        source: format!("{verb} {path}: injected").into(),
    }
}

/// A store that breaks when its countdown says so.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    inner: Arc<dyn ObjectStore>,
    countdown: Arc<Countdown>,
}

impl FaultyStore {
    pub fn new(inner: Arc<dyn ObjectStore>, countdown: Arc<Countdown>) -> Self {
        Self { inner, countdown }
    }

    fn enter(&self, verb: &str, path: &Path, writes: bool) -> Result<Fate> {
        self.countdown.enter(verb, path.as_ref(), writes)
    }

    async fn delete_one(self, path: Path) -> Result<Path> {
        let fate = self.enter("delete", &path, true)?;
        let done = self.inner.delete(&path).await;
        fate.answer(done, "delete", path.as_ref())?;
        Ok(path)
    }

    /// One operation that answers a stream.
    fn listing(
        &self,
        prefix: Option<&Path>,
        found: BoxStream<'static, Result<ObjectMeta>>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.countdown.enter("list", prefix.map_or("", Path::as_ref), false) {
            Ok(_) => found,
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Faulty({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let fate = self.enter("put", location, true)?;
        let done = self.inner.put_opts(location, payload, opts).await;
        fate.answer(done, "put", location.as_ref())
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.enter("start upload of", location, false)?;
        let inner = self.inner.put_multipart_opts(location, opts).await?;
        let (countdown, path) = (Arc::clone(&self.countdown), location.clone());
        Ok(Box::new(FaultyUpload { inner, countdown, path }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.enter("get", location, false)?;
        self.inner.get_opts(location, options).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.enter("get ranges of", location, false)?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        locations.and_then(move |path| store.clone().delete_one(path)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.listing(prefix, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.countdown.enter("list folder", prefix.map_or("", Path::as_ref), false)?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fate = self.enter("copy to", to, true)?;
        let done = self.inner.copy_opts(from, to, options).await;
        fate.answer(done, "copy to", to.as_ref())
    }
}

/// An upload whose parts and end are operations, too.
#[derive(Debug)]
struct FaultyUpload {
    inner: Box<dyn MultipartUpload>,
    countdown: Arc<Countdown>,
    path: Path,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.countdown.enter("upload part of", self.path.as_ref(), false) {
            Ok(_) => self.inner.put_part(data),
            Err(error) => async { Err(error) }.boxed(),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fate = self.countdown.enter("complete upload of", self.path.as_ref(), true)?;
        let done = self.inner.complete().await;
        fate.answer(done, "complete upload of", self.path.as_ref())
    }

    async fn abort(&mut self) -> Result<()> {
        self.inner.abort().await
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn the_nth_operation_fails_and_what_follows_is_as_asked() {
        let (a, b) = (Path::from("a"), Path::from("b"));
        for (fault, afterwards) in
            [(Fault::Refused, Afterwards::Dead), (Fault::AnswerLost, Afterwards::Fine)]
        {
            let inner: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
            let countdown = Countdown::new(2, fault, afterwards);
            let store = FaultyStore::new(Arc::clone(&inner), Arc::clone(&countdown));
            store.put(&a, "1".into()).await.unwrap();
            assert!(!countdown.hit());
            assert!(store.put(&b, "2".into()).await.is_err());
            assert!(countdown.hit());
            assert_eq!(countdown.what(), "operation 2, put b");
            assert_eq!(inner.head(&b).await.is_ok(), fault == Fault::AnswerLost);
            assert_eq!(store.head(&a).await.is_ok(), afterwards == Afterwards::Fine);
            countdown.kill();
            assert!(store.head(&a).await.is_err());
        }
    }
}
