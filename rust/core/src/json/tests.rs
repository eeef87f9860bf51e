use super::*;

fn fails(text: &str) -> (usize, String) {
    let error = validate(text).unwrap_err();
    (error.offset, error.reason)
}

#[test]
fn valid_texts_pass() {
    for text in ["{}", " [1, -0.5e+3, 0] ", "\"\\ud83d\\ude00\"", "{\"a\": {\"a\": null}}", "true"] {
        validate(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    }
}

#[test]
fn errors_name_the_byte() {
    assert_eq!(fails("{\"a\": NaN}"), (6, "NaN is not a JSON number".into()));
    assert_eq!(fails("[-Infinity]"), (1, "-Infinity is not a JSON number".into()));
    assert_eq!(fails("[\"\\ud800\"]"), (2, "lone surrogate \\ud800".into()));
    assert_eq!(fails("\"\\udc00\"").0, 1);
    assert_eq!(fails("\"\\ud800\\u0041\"").0, 1);
    assert_eq!(fails("[1,]"), (3, "expected a value, found ']'".into()));
    assert_eq!(fails("{\"a\":1,}").0, 7);
    assert_eq!(fails("01").0, 0);
    assert_eq!(fails("1.").0, 2);
    assert_eq!(fails("[1e400]"), (1, "the number is too large".into()));
    assert_eq!(fails(&"9".repeat(310)).0, 0);
    assert_eq!(fails("\"a\u{1}\"").0, 2);
    assert_eq!(fails("\"abc"), (4, "the text ends inside a string".into()));
    assert_eq!(fails("\"\\u12\"").0, 1);
    assert_eq!(fails("{} x").0, 3);
    assert_eq!(fails("").0, 0);
}

#[test]
fn depth_is_limited() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(validate(&nested(MAX_DEPTH)).is_ok());
    assert_eq!(fails(&nested(MAX_DEPTH + 1)).0, MAX_DEPTH);
}
