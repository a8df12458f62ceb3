//! An object store in memory that counts listings, and fails or loses answers on demand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

/// Counts listings, and fails or loses the answer of writes of log entries on demand.
#[derive(Debug)]
pub struct Store {
    inner: Arc<InMemory>,
    pub listings: AtomicU64,
    /// Entries of the log that are written without an answer, and that are not written.
    pub lose: AtomicU64,
    pub fail: AtomicU64,
    /// Operations until the line goes dead for good; none if it is the largest number.
    pub left: AtomicU64,
}

impl Store {
    pub fn over(inner: &Arc<InMemory>) -> Arc<Self> {
        Arc::new(Self {
            inner: inner.clone(),
            listings: AtomicU64::new(0),
            lose: AtomicU64::new(0),
            fail: AtomicU64::new(0),
            left: AtomicU64::new(u64::MAX),
        })
    }
}

impl Store {
    /// Counts an operation.
    fn reach(&self) -> object_store::Result<()> {
        match self.left.load(Ordering::SeqCst) {
            u64::MAX => Ok(()),
            0 => Err(broken()),
            left => {
                self.left.store(left - 1, Ordering::SeqCst);
                Ok(())
            }
        }
    }
}

fn take(count: &AtomicU64) -> bool {
    count.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok()
}

fn broken() -> object_store::Error {
    object_store::Error::Generic { store: "test", source: "the line went dead".into() }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store")
    }
}

#[async_trait]
impl ObjectStore for Store {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.reach()?;
        let entry = location.as_ref().contains("_delta_log") && location.as_ref().ends_with("json");
        if entry && take(&self.fail) {
            return Err(broken());
        }
        let written = self.inner.put_opts(location, payload, options).await;
        if entry && take(&self.lose) {
            return Err(broken());
        }
        written
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.reach()?;
        self.inner.put_multipart_opts(location, options).await
    }

    async fn get_opts(
        &self,
        location: &Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.reach()?;
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.listings.fetch_add(1, Ordering::SeqCst);
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &Path,
        to: &Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
