//! What an object store's error means to the person who named the store.

use std::error::Error;

/// The error with the cause at its bottom, which the layers between leave out.
pub(super) fn told(error: &object_store::Error) -> String {
    let text = error.to_string();
    let mut cause: &dyn Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    let cause = cause.to_string();
    if text.contains(&cause) { text } else { format!("{text}: {cause}") }
}

/// What to do about it, where that is known.
pub(super) fn hint(error: &object_store::Error) -> Option<&'static str> {
    let text = told(error);
    let has = |part: &str| text.contains(part);
    if has("169.254.169.254") || has("metadata.google.internal") {
        return Some(
            "no credentials were given, so the machine was asked for some: set AWS_ACCESS_KEY_ID \
             and AWS_SECRET_ACCESS_KEY (AZURE_…, GOOGLE_…), or storage options of these names",
        );
    }
    if has("NoSuchBucket") || has("ContainerNotFound") {
        return Some("make the bucket first: folders are made, buckets are not");
    }
    if has("URL scheme is not allowed") {
        return Some("AWS_ALLOW_HTTP=true lets an http:// endpoint pass");
    }
    if has("certificate") {
        return Some("the server's authority must be among those that the system trusts");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_cause_is_told_and_known_ones_have_a_hint() {
        let of = |cause: &str| {
            let source = Box::new(Outer(std::io::Error::other(cause.to_owned())));
            object_store::Error::Generic { store: "S3", source }
        };
        let error = of("URL scheme is not allowed");
        assert_eq!(told(&error), "Generic S3 error: outer: URL scheme is not allowed");
        assert!(hint(&error).is_some_and(|hint| hint.contains("AWS_ALLOW_HTTP")));
        assert_eq!(hint(&of("something else")), None);
    }
}
