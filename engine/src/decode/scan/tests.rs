//! The scanner against hand-made cases, and against serde_json on what JSON is.

use super::*;
use proptest::prelude::*;

fn record<'a>(text: &'a str, keys: &mut Keys) -> Result<Vec<Option<&'a str>>, Syntax> {
    let mut found = vec![None; keys.columns.len()];
    Scanner::new(text.as_bytes(), 0).record(keys, |column, span| {
        found[column] = Some(&text[span.start as usize..span.end as usize]);
    })?;
    Ok(found)
}

#[test]
fn finds_wanted_values_in_any_order() {
    let mut keys = Keys::new(["a", "b"]);
    let cases = [
        (r#"{"a":1,"b":"x"}"#, [Some("1"), Some("x")]),
        (r#"{"a":2,"b":"y"}"#, [Some("2"), Some("y")]),
        (
            r#" { "b" : [ 1 , {"a":9} ] , "c":null,"a":-1.5e+3 } "#,
            [Some("-1.5e+3"), Some("[ 1 , {\"a\":9} ]")],
        ),
        (r#"{"ab":1}"#, [None, None]),
        (r#"{"\u0061":7}"#, [Some("7"), None]),
        (r#"{"a":1,"a":2}"#, [Some("2"), None]),
        ("{}", [None, None]),
    ];
    for (text, wanted) in cases {
        assert_eq!(record(text, &mut keys), Ok(wanted.to_vec()), "{text}");
    }
}

#[test]
fn a_guess_is_no_more_than_a_guess() {
    let mut keys = Keys::new(["a", "b"]);
    let texts = [
        (r#"{"a": 1, "b": 2}"#, Ok([Some("1"), Some("2")])),
        (r#"{"a":  3,"b":4}"#, Ok([Some("3"), Some("4")])),
        (r#"{"b":5 ,"a":6 }"#, Ok([Some("6"), Some("5")])),
        (r#"{"b":5,"ab":6,"a":7}"#, Ok([Some("7"), Some("5")])),
        (r#"{"b":8}"#, Ok([None, Some("8")])),
        (r#"{"b":9,"ab":}"#, Err("a value")),
        (r#"{"b":9,"ab":1"#, Err("',' or '}'")),
        (r#"{"b":9,}"#, Err("a key")),
        (r#"{,"b":9}"#, Err("a key")),
    ];
    for (text, wanted) in texts.iter().chain(texts.iter().rev()) {
        let found = record(text, &mut keys).map_err(|fault| fault.expected);
        assert_eq!(found, wanted.map(|values| values.to_vec()), "{text}");
    }
}

#[test]
fn nesting_is_limited_and_never_recurses() {
    let mut keys = Keys::new([]);
    for (depth, fine) in [(127, true), (128, true), (129, false), (1_000_000, false)] {
        let text = format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(record(&text, &mut keys).is_ok(), fine, "{depth}");
        let text = format!("{{\"a\":{}1{}}}", "{\"a\":".repeat(depth), "}".repeat(depth));
        assert_eq!(record(&text, &mut keys).is_ok(), fine, "{depth}");
    }
}

#[test]
fn escapes_become_characters() {
    let mut out = Vec::new();
    unescape(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00ü"#, &mut out).unwrap();
    assert_eq!(String::from_utf8(out).unwrap(), "a\"\\/\u{8}\u{c}\n\r\té😀ü");
    for half in [r"\ud83d", r"\ude00", r"\ud83dx", r"\ud83d\u0041", r"\ud83d\n"] {
        assert!(unescape(half, &mut Vec::new()).is_err(), "{half}");
    }
}

#[test]
fn a_byte_order_mark_is_passed_over() {
    assert!(record("\u{feff}{}", &mut Keys::new([])).is_ok());
}

/// Texts that are nearly JSON.
fn nearly_json() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"",
        "\"a\"",
        "\"b\":",
        "1",
        "-",
        "0",
        "01",
        "1.5",
        "1e5",
        ".",
        "true",
        "false",
        "null",
        "nul",
        " ",
        "\n",
        "\\",
        "\\n",
        "\\u12",
        "\"\\u00e9\"",
        "\t",
        "x",
        "é",
        "{}",
    ]);
    prop_oneof![
        prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat()),
        "\\{\"a\":[-0-9.eE+\\[\\]{},\"a: ]{0,12}\\}",
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn agrees_with_serde_json_on_what_an_object_is(text in nearly_json()) {
        let theirs = serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&text);
        // serde_json refuses numbers beyond f64; the grammar allows them.
        let theirs = theirs.map(|_| ()).map_err(|error| error.to_string());
        prop_assume!(!theirs.as_ref().is_err_and(|e| e.contains("out of range")));
        let ours = record(&text, &mut Keys::new(["a"]));
        prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?} {:?}", text, ours, theirs);
    }
}
