//! An S3 server for a test: moto's, by `scripts/python.sh` and `tests/clients/s3.py`.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::aws::AmazonS3Builder;

use crate::python::{interpreter, root};

const BUCKET: &str = "mill";

/// A server with one empty bucket; killed when dropped.
pub struct S3 {
    endpoint: String,
    server: Child,
}

impl S3 {
    /// `None` where there can be none.
    ///
    /// # Panics
    /// If it should be there (`TIDEMILL_REQUIRE_ALL=1`), or does not start.
    pub fn start() -> Option<Self> {
        let python = interpreter("s3")?;
        let mut server = Command::new(python)
            .arg(root().join("tests/clients/s3.py"))
            .arg(BUCKET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut endpoint = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut endpoint).unwrap();
        let endpoint = endpoint.trim().to_owned();
        assert!(endpoint.starts_with("http://"), "s3.py said {endpoint:?}");
        Some(Self { endpoint, server })
    }

    pub fn url(&self) -> String {
        format!("s3://{BUCKET}/")
    }

    /// What a program that is to reach it needs in its environment.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ENDPOINT", self.endpoint.clone()),
            ("AWS_ALLOW_HTTP", "true".into()),
            ("AWS_REGION", "us-east-1".into()),
            ("AWS_ACCESS_KEY_ID", "test".into()),
            ("AWS_SECRET_ACCESS_KEY", "test".into()),
        ]
    }

    /// The bucket itself.
    pub fn store(&self) -> Arc<dyn ObjectStore> {
        let builder = AmazonS3Builder::new()
            .with_bucket_name(BUCKET)
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_access_key_id("test")
            .with_secret_access_key("test");
        Arc::new(builder.build().unwrap())
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
