//! Reads the value of a record's key as the type that the key needs.

use super::record::TopK;
use crate::dialects;
use crate::json::{Cursor, JsonError, Kind};
use crate::messages::{self, Rule};

/// Reads the value of the key `name`.
pub struct Reader<'c, 'a> {
    pub cursor: &'c mut Cursor<'a>,
    pub name: &'c str,
    pub allow_reasoning: bool,
}

impl<'a> Reader<'_, 'a> {
    pub fn text(&mut self) -> Result<String, JsonError> {
        const WANTED: &str = "a string that is not blank";
        let offset = self.start(Kind::String, WANTED)?;
        let text = self.cursor.string()?.text();
        if text.trim().is_empty() {
            Err(self.wrong(offset, WANTED, "a blank one"))
        } else {
            Ok(text.into_owned())
        }
    }

    pub fn flag(&mut self) -> Result<bool, JsonError> {
        self.start(Kind::Bool, "true or false")?;
        let span = self.cursor.value()?.span;
        Ok(self.cursor.slice(span) == "true")
    }

    pub fn object(&mut self) -> Result<String, JsonError> {
        self.object_slice().map(str::to_owned)
    }

    pub fn object_slice(&mut self) -> Result<&'a str, JsonError> {
        self.start(Kind::Object, "an object")?;
        let span = self.cursor.value()?.span;
        Ok(self.cursor.slice(span))
    }

    pub fn ids(&mut self) -> Result<Vec<u32>, JsonError> {
        self.numbers(IDS, token_id)
    }

    pub fn mask(&mut self) -> Result<Vec<u8>, JsonError> {
        self.numbers("zeros and ones", |text| text.parse().ok().filter(|value| *value <= 1))
    }

    /// An array of numbers, each converted by `convert`; `None` from it is an error.
    fn numbers<T>(&mut self, wanted: &str, convert: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, JsonError> {
        let wanted = format!("an array of {wanted}");
        self.start(Kind::Array, &wanted)?;
        let mut numbers = Vec::new();
        let name = self.name;
        self.cursor.array(|cursor, _| {
            let kind = cursor.peek()?;
            let span = cursor.value()?.span;
            let number = convert(cursor.slice(span.clone())).filter(|_| kind == Kind::Number);
            numbers.push(number.ok_or_else(|| {
                let found = cursor.slice(span.clone());
                let reason = format!("{name}: expected {wanted}, got {}", messages::excerpt(found));
                cursor.error_at(span.start, reason)
            })?);
            Ok::<_, JsonError>(())
        })?;
        Ok(numbers)
    }

    pub fn topk(&mut self) -> Result<TopK, JsonError> {
        const WANTED: &str = "an object with ids and logprobs, lists of equal lengths";
        let offset = self.start(Kind::Object, WANTED)?;
        let mut topk = TopK::default();
        let name = self.name;
        self.cursor.object(|cursor, key| match &*key.text() {
            "ids" => rows(cursor, "teacher_topk.ids", IDS, token_id).map(|ids| topk.ids = ids),
            "logprobs" => {
                rows(cursor, "teacher_topk.logprobs", LOGPROBS, logprob).map(|rows| topk.logprobs = rows)
            }
            other => Err(cursor.error_at(key.span.start, format!("{name}: unknown key {other:?}"))),
        })?;
        if !topk.ids.iter().map(Vec::len).eq(topk.logprobs.iter().map(Vec::len)) {
            return Err(self.wrong(offset, WANTED, "different ones"));
        }
        Ok(topk)
    }

    /// Tool definitions: an array of objects.
    pub fn tools(&mut self) -> Result<String, JsonError> {
        if self.cursor.peek()? == Kind::String {
            let found = "a string; if it holds JSON, decode it (json.loads) before you write the record";
            return Err(self.wrong(self.cursor.position(), "an array of objects", found));
        }
        self.objects().map(|json| dialects::tools(&json).into_owned())
    }

    /// An array of objects.
    pub fn objects(&mut self) -> Result<String, JsonError> {
        let offset = self.start(Kind::Array, "an array of objects")?;
        let name = self.name;
        self.cursor.array(|cursor, index| {
            let kind = cursor.peek()?;
            if kind != Kind::Object {
                let reason = format!("{name}[{index}]: expected an object, got {}", kind.name());
                return Err(cursor.error_at(cursor.position(), reason));
            }
            cursor.value().map(drop)
        })?;
        Ok(self.cursor.slice(offset..self.cursor.position()).to_owned())
    }

    /// A conversation: an array of messages, not empty.
    pub fn messages(&mut self) -> Result<String, JsonError> {
        const WANTED: &str = "an array of messages that is not empty";
        let offset = self.start(Kind::Array, WANTED)?;
        let mut count = 0;
        let name = self.name;
        self.cursor.array(|cursor, index| {
            count += 1;
            messages::check(cursor, &format!("{name}[{index}]"), Rule::AnyTurn)
        })?;
        if count == 0 {
            return Err(self.wrong(offset, WANTED, "an empty one"));
        }
        Ok(dialects::messages(self.cursor.slice(offset..self.cursor.position())).into_owned())
    }

    /// An assistant message that says something.
    pub fn answer(&mut self) -> Result<String, JsonError> {
        let offset = self.start(Kind::Object, "an assistant message")?;
        messages::check(self.cursor, self.name, Rule::Answer { allow_reasoning: self.allow_reasoning })?;
        Ok(dialects::messages(self.cursor.slice(offset..self.cursor.position())).into_owned())
    }

    /// Where the value starts; an error unless it is of `kind`.
    fn start(&mut self, kind: Kind, wanted: &str) -> Result<usize, JsonError> {
        let found = self.cursor.peek()?;
        let offset = self.cursor.position();
        if found == kind { Ok(offset) } else { Err(self.wrong(offset, wanted, found.name())) }
    }

    fn wrong(&self, offset: usize, wanted: &str, found: &str) -> JsonError {
        self.cursor.error_at(offset, format!("{}: expected {wanted}, got {found}", self.name))
    }
}

const IDS: &str = "token ids (0 to 4294967295)";
const LOGPROBS: &str = "log-probabilities (finite, at most 0)";

fn token_id(text: &str) -> Option<u32> {
    text.parse().ok()
}

/// Some APIs round the 0 of a certain token up.
fn logprob(text: &str) -> Option<f32> {
    text.parse().ok().filter(|value: &f32| value.is_finite() && *value <= 0.01)
}

/// An array of arrays of numbers.
fn rows<T>(
    cursor: &mut Cursor<'_>,
    name: &str,
    wanted: &str,
    convert: fn(&str) -> Option<T>,
) -> Result<Vec<Vec<T>>, JsonError> {
    let mut rows = Vec::new();
    cursor.array(|cursor, _| {
        rows.push(Reader { cursor, name, allow_reasoning: false }.numbers(wanted, convert)?);
        Ok::<_, JsonError>(())
    })?;
    Ok(rows)
}
