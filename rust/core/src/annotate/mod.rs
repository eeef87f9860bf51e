//! From a record to rows of tokens with spans.
//!
//! A row is the tokens of the prompt, of the answer and of the turn end. Each part is encoded alone, so that their
//! boundaries are exact. Spans are found as bytes of the text and turned into token indices; ids are never searched
//! for. Nothing is shifted here: collation shifts the targets, once.

mod blame;
mod content_tokens;
mod conversation;
mod fields;
mod forms;
mod options;
mod roles;
mod row;
mod said;
mod spans;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::fields::Record;
use crate::schema::ToolSchema;
use crate::template::ChatTemplate;
use crate::tokenize::Tokenizer;
use crate::tool_call::{Reading, Thinking, find_tool_calls};
use crate::{Error, Result};

pub use content_tokens::ContentTokens;
use content_tokens::{Guard, unmarked};
use conversation::{Piece, Prompt, Rendering, TurnEnd};
use forms::Forms;
pub use options::{InvalidCalls, Options, Supervise};
pub use row::{Row, Source};
pub use spans::{Span, Spans};

/// Annotates records. One is made for a run, and all threads share it.
#[derive(Debug)]
pub struct Annotator<'a> {
    tokenizer: &'a Tokenizer,
    rendering: Rendering<'a>,
}

/// Which annotation a store holds. It is part of a store's name: raise it when rows of the same record change.
pub const ANNOTATION_VERSION: u32 = 4;

impl<'a> Annotator<'a> {
    pub fn new(tokenizer: &'a Tokenizer, template: &'a ChatTemplate, options: Options) -> Result<Self> {
        let turn_end = TurnEnd::find(tokenizer, template)?;
        let forms = Forms::of(template);
        let guard = Guard::new(tokenizer, template, options.content_tokens, options.formats);
        Ok(Self { tokenizer, rendering: Rendering { template, turn_end, forms, guard, options } })
    }

    /// The ids that end an assistant turn.
    pub fn turn_end_ids(&self) -> &[u32] {
        &self.rendering.turn_end.ids
    }

    /// A row for the teacher's answer, and one for the ground truth if that has other tokens.
    pub fn annotate(&self, record: &Record) -> Result<Vec<Row>> {
        for text in [&record.prompt, &record.teacher_text, &record.truth_text] {
            content_tokens::check_raw(text.as_deref())?;
        }
        let prompt = Prompt::of(record, &self.rendering)?;
        let teacher = prompt.answer(
            record.teacher_text.as_deref(),
            record.teacher_message.as_deref(),
            "teacher_message",
        )?;
        let truth =
            prompt.answer(record.truth_text.as_deref(), record.truth_message.as_deref(), "truth_message")?;
        let mut rows = Vec::with_capacity(2);
        if let Some((answer, ended)) = &teacher {
            let raw = record.teacher_message.is_none();
            rows.push(self.row(record, &prompt, (answer, *ended), Source::Teacher, raw)?);
        } else if record.teacher_topk.is_some() {
            return Err(Error::data("teacher_topk needs the answer it belongs to: give teacher_text"));
        }
        if let Some((answer, ended)) = &truth {
            let row =
                self.row(record, &prompt, (answer, *ended), Source::Truth, record.truth_message.is_none())?;
            if rows.first().is_none_or(|teacher| teacher.ids != row.ids) {
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return Err(Error::data(
                "the record has no answer: give teacher_text, teacher_message, truth_text or truth_message",
            ));
        }
        Ok(rows)
    }

    fn row(
        &self,
        record: &Record,
        prompt: &Prompt<'_>,
        (answer, ended_already): (&str, bool),
        source: Source,
        raw_answer: bool,
    ) -> Result<Row> {
        let cut =
            source == Source::Teacher && record.finish_reason.as_deref() == Some("length") && !ended_already;
        let options = &self.rendering.options;
        let tools = record.tools.as_deref().map(ToolSchema::cached).transpose()?;
        let mut tokens = Tokens { tools, ..Tokens::default() };
        for piece in &prompt.pieces {
            tokens.push_piece(piece, self)?;
        }
        let prompt_length = tokens.ids.len();
        if prompt_length == 0 {
            return Err(Error::data("the prompt has no tokens: the tokenizer dropped all of it"));
        }
        tokens.push_answer(answer, !cut, self)?;
        let response = prompt_length as u32..tokens.ids.len() as u32;
        if response.is_empty() {
            return Err(Error::data("the answer has no tokens"));
        }
        let drop_groups = if tokens.prompt_lossy {
            Vec::new()
        } else {
            let offsets = self.tokenizer.byte_offsets(&tokens.ids[..prompt_length]);
            spans::groups(&prompt.boundaries, &offsets)
        };
        let mut row = Row {
            line: record.line,
            source,
            supervised: match options.supervise {
                Supervise::Last => vec![response.clone()],
                Supervise::All => tokens.supervised,
            },
            ids: tokens.ids,
            response,
            spans: tokens.spans,
            drop_groups,
            teacher_prefix_ids: Vec::new(),
            tool_should_be_used: false,
            required_fields_present: false,
            call_valid: true,
            escaped: prompt.escaped || content_tokens::is_marked(answer),
            ended_already,
            raw_text: raw_answer || record.prompt.is_some(),
            teacher_attention_mask: None,
            teacher_length: 0,
            validated_arguments: None,
            finish_reason: record.finish_reason.clone(),
            tools: record.tools.clone(),
            metadata: record.metadata.clone(),
            prompt_lossy: tokens.prompt_lossy,
            topk: None,
        };
        fields::fill(&mut row, record, &tokens.last_calls, tokens.tools.as_deref(), options)?;
        fields::hand_on_topk(&mut row, record, self.tokenizer.vocab_size(), self.turn_end_ids().len())?;
        Ok(row)
    }
}

/// A row's tokens while they are collected.
#[derive(Default)]
struct Tokens {
    ids: Vec<u32>,
    supervised: Vec<Span>,
    spans: Spans,
    last_calls: Vec<spans::CallTokens>,
    prompt_lossy: bool,
    tools: Option<Arc<ToolSchema>>,
    /// Whether the next answer begins inside a thinking block.
    thinking: Thinking,
}

impl Tokens {
    fn push_piece(&mut self, piece: &Piece, annotator: &Annotator) -> Result<()> {
        match piece {
            Piece::Prompt(text) => {
                // A turn end may take the white space after it along (`rstrip`): it must be there to do so.
                let before = if self.ids.is_empty() { "" } else { &annotator.rendering.turn_end.text };
                let ids = content_tokens::encode(annotator.tokenizer, &format!("{before}{text}"))?;
                let skipped = if before.is_empty() { 0 } else { annotator.turn_end_ids().len() };
                if !ids.starts_with(&annotator.turn_end_ids()[..skipped]) {
                    return Err(Error::data(
                        "the tokenizer joins the end of a turn with what follows: set data.supervise to last",
                    ));
                }
                let ids = &ids[skipped..];
                self.prompt_lossy |= !annotator.tokenizer.covers(&unmarked(text), ids);
                self.ids.extend(ids);
                self.thinking = Thinking::after(&unmarked(text));
                Ok(())
            }
            Piece::Answer(text) => self.push_answer(text, true, annotator),
        }
    }

    fn push_answer(&mut self, text: &str, ends: bool, annotator: &Annotator) -> Result<()> {
        let tokenizer = annotator.tokenizer;
        let first = self.ids.len() as u32;
        let ids = content_tokens::encode(tokenizer, text)?;
        let text = &*unmarked(text);
        if let Some(at) = tokenizer.first_difference(text, &ids) {
            let composed = if tokenizer.normalises() {
                "; this tokenizer composes letters and their accents (NFC): write the answer so, in Python by \
                 unicodedata.normalize('NFC', text)"
            } else {
                ""
            };
            return Err(Error::data(format!(
                "the answer does not survive the tokenizer: its byte {at} is lost or changed (the vocabulary lacks \
                 it, or a normaliser is at work), near {:?}{composed}",
                quote(text, at)
            )));
        }
        let reading = Reading {
            formats: annotator.rendering.options.formats,
            thinking: self.thinking,
            tools: self.tools.as_deref(),
        };
        let calls = find_tool_calls(text, reading);
        let offsets = tokenizer.byte_offsets(&ids);
        self.last_calls = self.spans.push_calls(calls, &offsets, first);
        self.ids.extend(ids);
        if ends {
            let end = self.ids.len() as u32;
            self.ids.extend(annotator.turn_end_ids());
            self.spans.turn_end.push(end..self.ids.len() as u32);
        }
        self.supervised.push(first..self.ids.len() as u32);
        Ok(())
    }
}

/// About 20 characters of `text` around byte `at`.
fn quote(text: &str, at: usize) -> String {
    let start = (0..=at.saturating_sub(10)).rev().find(|&start| text.is_char_boundary(start)).unwrap_or(0);
    text[start..].chars().take(20).collect()
}
