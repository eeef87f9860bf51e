//! The text of a row: prompt, answers, turn end, and where turns may be dropped.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::blame::{self, joined};
use super::content_tokens::{Guard, is_marked, unmarked, unmarked_position};
use super::forms::Forms;
use super::options::{Options, Supervise};
use super::roles;
use super::said;
use crate::fields::Record;
use crate::json::node::Node;
use crate::template::ChatTemplate;
use crate::tokenize::Tokenizer;
use crate::{Error, Result};

const SENTINEL: &str = "kdfast-sentinel-answer";

/// How the template ends an assistant turn.
#[derive(Debug)]
pub struct TurnEnd {
    /// Up to and including the first special token after the content.
    pub ids: Vec<u32>,
    pub text: String,
    /// The turn end and what the template writes after it.
    suffix: String,
}

impl TurnEnd {
    /// Renders an answer that no record has and looks at what follows it.
    pub fn find(tokenizer: &Tokenizer, template: &ChatTemplate) -> Result<Self> {
        let messages = format!(
            r#"[{{"role":"user","content":"question"}},{{"role":"assistant","content":"{SENTINEL}"}}]"#
        );
        let rendered = template.render(&messages, None, false)?;
        let at = rendered.rfind(SENTINEL).ok_or_else(|| {
            Error::data(
                "the chat template leaves out the content of an assistant message: use another template",
            )
        })?;
        let suffix = rendered[at + SENTINEL.len()..].to_owned();
        let mut ids = tokenizer.encode(&suffix)?;
        let special = ids.iter().position(|&id| tokenizer.is_special(id)).ok_or_else(|| {
            Error::data(format!(
                "the chat template ends an assistant turn without a special token of this tokenizer, so the student \
                 could not learn to stop: use a template and tokenizer that belong together; it writes {suffix:?}"
            ))
        })?;
        ids.truncate(special + 1);
        let text = tokenizer.decode(&ids);
        if !suffix.starts_with(&text) {
            return Err(Error::data(format!(
                "the tokenizer changes the turn end {suffix:?}: use another tokenizer"
            )));
        }
        Ok(Self { ids, text, suffix })
    }
}

/// A part of a row's text before its last answer.
#[derive(Debug)]
pub enum Piece {
    Prompt(String),
    /// An earlier assistant turn that is learned; the turn end follows it.
    Answer(String),
}

/// What prompts and answers are rendered with.
#[derive(Debug)]
pub struct Rendering<'a> {
    pub template: &'a ChatTemplate,
    pub turn_end: TurnEnd,
    pub forms: Forms,
    pub guard: Guard,
    pub options: Options,
}

impl Rendering<'_> {
    /// Messages or a message in the forms that the template takes, with control tokens in their content marked.
    fn marked<'j>(&self, json: &'j str) -> Result<Cow<'j, str>> {
        Ok(match self.forms.apply(json) {
            Cow::Borrowed(json) => self.guard.mark(json)?,
            Cow::Owned(json) => Cow::Owned(self.guard.mark(&json)?.into_owned()),
        })
    }
}

/// Everything before the answer.
#[derive(Debug)]
pub struct Prompt<'a> {
    pub pieces: Vec<Piece>,
    /// The bytes at which droppable groups begin, and the byte at which the last one ends.
    pub boundaries: Vec<usize>,
    /// Control tokens in its content are marked.
    pub escaped: bool,
    rendering: &'a Rendering<'a>,
    text: String,
    messages: Option<String>,
    tools: Option<String>,
}

impl<'a> Prompt<'a> {
    pub fn of(record: &Record, rendering: &'a Rendering<'a>) -> Result<Self> {
        let tools = record.tools.as_deref().map(|tools| rendering.guard.mark(tools)).transpose()?;
        let tools = tools.as_deref();
        let messages = match record.messages.as_deref() {
            Some(messages) => {
                let (messages, _) = rendering.turn_end.taken_off_messages(messages);
                Some(rendering.marked(&messages)?.into_owned())
            }
            None => None,
        };
        let (text, pieces, boundaries) = match (&record.prompt, &messages) {
            (Some(prompt), _) => (prompt.clone(), vec![Piece::Prompt(prompt.clone())], Vec::new()),
            (None, Some(messages)) => {
                let conversation = Conversation::new(messages, tools, rendering.template)?;
                let pieces = match rendering.options.supervise {
                    Supervise::Last => vec![Piece::Prompt(conversation.text.clone())],
                    Supervise::All => conversation.pieces(rendering)?,
                };
                let boundaries = conversation.boundaries();
                let unmarked = |at: usize| unmarked_position(&conversation.text, at);
                let boundaries = boundaries.into_iter().map(unmarked).collect();
                (conversation.text, pieces, boundaries)
            }
            (None, None) => {
                return Err(Error::data("the record has neither prompt nor messages: give one of them"));
            }
        };
        let messages = messages.filter(|_| record.prompt.is_none());
        let escaped = is_marked(&text);
        Ok(Self { pieces, boundaries, escaped, rendering, text, messages, tools: tools.map(str::to_owned) })
    }

    /// The text of an answer, and whether it came with its turn end, which is taken off. The text is as given, or
    /// rendered from a message, which errors call `name`.
    pub fn answer(
        &self,
        text: Option<&str>,
        message: Option<&str>,
        name: &str,
    ) -> Result<Option<(String, bool)>> {
        let Rendering { template, turn_end, options, .. } = self.rendering;
        let Some(message) = message else {
            return Ok(text
                .map(|text| turn_end.taken_off(text))
                .map(|(text, ended)| (text.to_owned(), ended)));
        };
        let (message, ended) = turn_end.taken_off_messages(message);
        let message = self.rendering.marked(&message)?;
        let tools = self.tools.as_deref();
        let rendered;
        let (before, prompt) = if let Some(messages) = &self.messages {
            (messages.as_str(), &self.text)
        } else {
            // The prompt was given as text: render the answer after some question.
            let question = r#"[{"role":"user","content":"question"}]"#;
            rendered = template.render(question, tools, true)?;
            (question, &rendered)
        };
        let mut all = elements(before)?;
        all.push(&message);
        let earlier = all.len() - 1;
        let place = |index| if index == earlier { name.to_owned() } else { format!("messages[{index}]") };
        let whole = blame::render(template, &all, tools, false, place)?;
        let content = turn_end.content(&whole, prompt)?;
        let reading = options.reading(&unmarked(prompt));
        said::check(&unmarked(&message), &unmarked(&content), reading)?;
        Ok(Some((content, ended)))
    }
}

impl TurnEnd {
    /// An answer without the turn end that it came with, and whether it did.
    pub fn taken_off<'t>(&self, answer: &'t str) -> (&'t str, bool) {
        let suffixes = [self.suffix.as_str(), self.suffix.trim_end(), self.text.as_str()];
        let found = suffixes
            .iter()
            .filter(|suffix| !suffix.is_empty())
            .find_map(|suffix| answer.strip_suffix(suffix));
        found.map_or((answer, false), |rest| (rest, true))
    }

    /// The same for a message, or an array of messages (valid JSON): the content of the assistant's.
    fn taken_off_messages<'j>(&self, json: &'j str) -> (Cow<'j, str>, bool) {
        let parsed = if json.contains(&self.text) { Node::parse(json).ok() } else { None };
        let Some(mut parsed) = parsed else { return (Cow::Borrowed(json), false) };
        let messages = if let Node::Array(messages) = &mut parsed {
            messages
        } else {
            std::slice::from_mut(&mut parsed)
        };
        let mut any = false;
        for message in messages {
            let assistant = message.get("role").and_then(Node::text).as_deref() == Some("assistant");
            if let Some(content) = message.get_mut("content").filter(|_| assistant)
                && let Some(text) = content.text()
                && let (rest, true) = self.taken_off(&text)
            {
                let rest = Node::string(rest);
                *content = rest;
                any = true;
            }
        }
        if any { (Cow::Owned(parsed.json()), true) } else { (Cow::Borrowed(json), false) }
    }

    /// What `whole` adds to `prompt`, without the turn end.
    fn content(&self, whole: &str, prompt: &str) -> Result<String> {
        let turn = whole
            .strip_prefix(prompt)
            .ok_or_else(|| unstable("an answer changes how its prompt is rendered"))?;
        let content = turn
            .strip_suffix(&self.suffix)
            .ok_or_else(|| unstable("an answer is not ended as other assistant turns are"))?;
        Ok(content.to_owned())
    }
}

fn unstable(what: &str) -> Error {
    Error::data(format!(
        "the chat template is not stable turn by turn ({what}): use kdfast's own template, or give texts instead of messages"
    ))
}

/// Messages, rendered in part or as a whole.
struct Conversation<'a> {
    template: &'a ChatTemplate,
    tools: Option<&'a str>,
    messages: Vec<&'a str>,
    roles: Vec<String>,
    /// Whether a turn is to be learned where all of an assistant's are: `weight: 0` says no, as in `OpenAI`'s files.
    learned: Vec<bool>,
    /// All messages, rendered with the generation prompt.
    text: String,
}

impl<'a> Conversation<'a> {
    fn new(json: &'a str, tools: Option<&'a str>, template: &'a ChatTemplate) -> Result<Self> {
        let messages = elements(json)?;
        let mut roles = Vec::with_capacity(messages.len());
        let mut learned = Vec::with_capacity(messages.len());
        let text = blame::render(template, &messages, tools, true, |index| format!("messages[{index}]"))?;
        for (index, message) in messages.iter().enumerate() {
            let node =
                Node::parse(message).map_err(|e| Error::data(format!("messages[{index}]: {}", e.reason)))?;
            let role = node.get("role").and_then(Node::text);
            let role =
                role.ok_or_else(|| Error::data(format!("messages[{index}] has no role")))?.into_owned();
            roles::check_heard(&node, &role, &text, index, |other| {
                let all = [&messages[..index], &[other], &messages[index + 1..]].concat();
                template.render(&joined(&all), tools, true)
            })?;
            learned.push(role == "assistant" && !is_zero(node.get("weight")));
            roles.push(role);
        }
        Ok(Self { template, tools, messages, roles, learned, text })
    }

    fn render(&self, messages: &[&str], add_generation_prompt: bool) -> Result<String> {
        self.template.render(&joined(messages), self.tools, add_generation_prompt)
    }

    /// The text, cut where the content of each assistant turn that is learned begins and ends.
    fn pieces(&self, rendering: &Rendering<'_>) -> Result<Vec<Piece>> {
        let turn_end = &rendering.turn_end;
        let mut pieces = Vec::new();
        let mut done = 0;
        for index in (0..self.messages.len()).filter(|&index| self.learned[index]) {
            let before = self.render(&self.messages[..index], true)?;
            let whole = self.render(&self.messages[..=index], false)?;
            if !self.text.starts_with(&whole) {
                return Err(unstable("a later turn changes how an earlier one is rendered"));
            }
            let content = turn_end.content(&whole, &before)?;
            let reading = rendering.options.reading(&unmarked(&before));
            said::check(&unmarked(self.messages[index]), &unmarked(&content), reading)
                .map_err(|error| Error::data(format!("messages[{index}]: {}", error.message)))?;
            pieces.push(Piece::Prompt(self.text[done..before.len()].to_owned()));
            done = before.len() + content.len() + turn_end.text.len();
            pieces.push(Piece::Answer(content));
        }
        pieces.push(Piece::Prompt(self.text[done..].to_owned()));
        Ok(pieces)
    }

    /// The bytes at which the groups that may be dropped begin, and at which the last one ends. A group is a user
    /// turn and all turns up to the next user turn. What comes before the first user turn is never dropped, nor the
    /// last group. Empty if the text without a group is not what the shorter conversation renders to.
    fn boundaries(&self) -> Vec<usize> {
        let users: Vec<usize> =
            self.roles.iter().enumerate().filter(|(_, role)| *role == "user").map(|(i, _)| i).collect();
        if users.len() < 2 {
            return Vec::new();
        }
        self.find_boundaries(&users).unwrap_or_default()
    }

    fn find_boundaries(&self, users: &[usize]) -> Option<Vec<usize>> {
        let mut boundaries = Vec::with_capacity(users.len());
        for &user in &users[1..] {
            let before = self.render(&self.messages[..user], false).ok()?;
            self.text.starts_with(&before).then(|| boundaries.push(before.len()))?;
        }
        // What comes before the first group cannot be rendered alone: without messages a template may add a system
        // turn of its own. Render the conversation without the group: the text gets shorter by the group's length.
        let first = boundaries[0];
        let start =
            first.checked_sub(self.text.len().checked_sub(self.without(users[0]..users[1])?.len())?)?;
        boundaries.insert(0, start);
        let last = boundaries[boundaries.len() - 1];
        let dropped = |end: usize| Some(format!("{}{}", self.text.get(..start)?, self.text.get(end..)?));
        let faithful = dropped(first)? == self.without(users[0]..users[1])?
            && dropped(last)? == self.without(users[0]..users[users.len() - 1])?
            && boundaries.is_sorted_by(|a, b| a < b);
        faithful.then_some(boundaries)
    }

    fn without(&self, dropped: std::ops::Range<usize>) -> Option<String> {
        let kept = [&self.messages[..dropped.start], &self.messages[dropped.end..]].concat();
        self.render(&kept, true).ok()
    }
}

fn is_zero(number: Option<&Node<'_>>) -> bool {
    matches!(number, Some(Node::Scalar(text)) if text.parse() == Ok(0.0))
}

/// The elements of a JSON array, each as its own text (numbers stay as they were written).
fn elements(json: &str) -> Result<Vec<&str>> {
    let no_array = || Error::data("messages must be a list of objects");
    let mut rest = json.trim_start().strip_prefix('[').ok_or_else(no_array)?.trim_start();
    let mut found = Vec::new();
    while !rest.starts_with(']') {
        let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<IgnoredAny>();
        stream
            .next()
            .ok_or_else(no_array)?
            .map_err(|e| Error::data(format!("messages is no JSON list: {e}")))?;
        let end = stream.byte_offset();
        found.push(rest[..end].trim());
        rest = rest[end..].trim_start();
        rest = rest.strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Ok(found)
}
