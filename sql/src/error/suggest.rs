//! "Did you mean": the nearest of the known words.

use strsim::normalized_damerau_levenshtein as similarity;

/// Below this two words have nothing to do with each other.
const ALIKE: f64 = 0.6;

/// The candidate that `word` was probably meant to be, regardless of case.
///
/// A candidate that `word` merely continues or begins (`earliest-offset` for
/// `earliest`) counts as near however long the rest is.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (score(&word, &candidate.to_lowercase()), candidate))
        .filter(|(score, _)| *score >= ALIKE)
        // The first of equals wins, so that the answer does not depend on the length of the list.
        .fold(None, |best: Option<(f64, &str)>, next| match best {
            Some(best) if best.0 >= next.0 => Some(best),
            _ => Some(next),
        })
        .map(|(_, candidate)| candidate)
}

fn score(word: &str, candidate: &str) -> f64 {
    let (short, long) =
        if word.len() < candidate.len() { (word, candidate) } else { (candidate, word) };
    let contained = short.len() >= 4 && long.contains(short);
    similarity(word, candidate).max(if contained { ALIKE } else { 0.0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_nearest_word() {
        let words = ["topic", "format", "earliest", "latest", "bootstrap.servers"];
        assert_eq!(nearest("topik", words), Some("topic"));
        assert_eq!(nearest("FROMAT", words), Some("format"));
        assert_eq!(nearest("earliest-offset", words), Some("earliest"));
        assert_eq!(nearest("servers", words), Some("bootstrap.servers"));
        assert_eq!(nearest("latset", words), Some("latest"));
        assert_eq!(nearest("xyz", words), None);
        assert_eq!(nearest("", words), None);
    }
}
