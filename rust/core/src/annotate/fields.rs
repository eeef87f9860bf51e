//! The optional fields of a record: taken as given, or derived from the row's answer.

use super::options::{InvalidCalls, Options};
use super::row::{Row, Source};
use super::spans::CallTokens;
use crate::fields::{Record, TopK};
use crate::schema::ToolSchema;
use crate::tool_call::ToolCall;
use crate::{Error, Result};

/// Fills the optional fields of `row`. A field that the record gives is taken for all its rows, except
/// `teacher_prefix_ids` and `teacher_attention_mask`: they describe the teacher's tokens, so a truth row beside a
/// teacher row derives its own.
pub fn fill(
    row: &mut Row,
    record: &Record,
    calls: &[CallTokens],
    schema: Option<&ToolSchema>,
    options: &Options,
) -> Result<()> {
    let is_valid = |ToolCall { name, arguments, .. }: &ToolCall| {
        schema.is_none_or(|schema| schema.is_valid(name, arguments))
    };
    let valid = calls.iter().find(|found| is_valid(&found.call));
    row.call_valid = calls.iter().all(|found| is_valid(&found.call));
    if !row.call_valid && options.invalid_calls == InvalidCalls::Reject {
        return Err(invalid(calls.iter().map(|found| &found.call), schema));
    }
    row.tool_should_be_used = record.tool_should_be_used.unwrap_or(!calls.is_empty());
    row.required_fields_present = record.required_fields_present.unwrap_or_else(|| {
        let present = |ToolCall { name, arguments, .. }: &ToolCall| {
            schema.is_none_or(|schema| schema.required_present(name, arguments))
        };
        !row.tool_should_be_used || (!calls.is_empty() && calls.iter().all(|found| present(&found.call)))
    });
    row.validated_arguments =
        record.validated_arguments.clone().or_else(|| valid.map(|found| found.call.arguments.clone()));

    let has_teacher = record.teacher_text.is_some() || record.teacher_message.is_some();
    let of_this_answer = row.source == Source::Teacher || !has_teacher;
    row.teacher_prefix_ids = match &record.teacher_prefix_ids {
        Some(given) if of_this_answer => given.clone(),
        _ => calls.first().map_or_else(Vec::new, |found| {
            let tokens = found.tokens.start as usize..found.tokens.end as usize;
            row.ids[tokens].iter().copied().take(options.prefix_tokens).collect()
        }),
    };
    row.teacher_length = row.response.len() as u32;
    if let Some(given) = record.teacher_attention_mask.as_deref().filter(|_| of_this_answer) {
        let mask = expand_mask(row, given)?;
        row.teacher_length = mask.iter().map(|&bit| u32::from(bit)).sum();
        row.teacher_attention_mask = Some(mask);
    }
    Ok(())
}

/// Why the first call that breaks its schema does so.
fn invalid<'c>(mut calls: impl Iterator<Item = &'c ToolCall>, schema: Option<&ToolSchema>) -> Error {
    let found =
        calls.find_map(|call| Some((call, schema?.issues(&call.name, &call.arguments).into_iter().next()?)));
    let what = found.map_or_else(String::new, |(call, issue)| {
        format!("{}: {} {}", call.name, issue.instance_path, issue.message)
    });
    Error::data(format!(
        "a call of the answer breaks its tool's schema ({what}): mend the record, or set data.invalid_calls to keep"
    ))
}

/// A mask with one entry for each token of the row. `given` may also be for the response's tokens alone; the others
/// get 0.
fn expand_mask(row: &Row, given: &[u8]) -> Result<Vec<u8>> {
    if given.len() == row.ids.len() {
        return Ok(given.to_vec());
    }
    if given.len() != row.response.len() {
        return Err(Error::data(format!(
            "teacher_attention_mask must have one entry a token of the row ({}) or of the response ({}), found {}",
            row.ids.len(),
            row.response.len(),
            given.len()
        )));
    }
    let mut mask = vec![0; row.ids.len()];
    mask[row.response.start as usize..].copy_from_slice(given);
    Ok(mask)
}

/// Checks the record's `teacher_topk` and puts it into the teacher's row, one entry for each supervised token.
pub fn hand_on_topk(row: &mut Row, record: &Record, vocab_size: usize, turn_end_tokens: usize) -> Result<()> {
    let Some(given) = record.teacher_topk.as_ref().filter(|_| row.source == Source::Teacher) else {
        return Ok(());
    };
    let tokens: usize = row.supervised.iter().map(ExactSizeIterator::len).sum();
    let ended = row.spans.turn_end.last().is_some_and(|end| end.end as usize == row.ids.len());
    let without_end = if ended { tokens - turn_end_tokens } else { tokens };
    let count = given.ids.len();
    if given.logprobs.len() != count || (count != tokens && count != without_end) {
        return Err(Error::data(format!(
            "teacher_topk must have one list a response token ({tokens}, or {without_end} without the turn end), \
             found {count} of ids and {} of logprobs",
            given.logprobs.len()
        )));
    }
    let mut topk = TopK::default();
    for (position, (ids, logprobs)) in given.ids.iter().zip(&given.logprobs).enumerate() {
        check_position(position, ids, logprobs, vocab_size)?;
        topk.ids.push(ids.clone());
        topk.logprobs.push(logprobs.clone());
    }
    // No distribution is known for a turn end that the record left out.
    topk.ids.resize(tokens, Vec::new());
    topk.logprobs.resize(tokens, Vec::new());
    row.topk = Some(topk);
    Ok(())
}

fn check_position(position: usize, ids: &[u32], logprobs: &[f32], vocab_size: usize) -> Result<()> {
    if ids.len() != logprobs.len() {
        return Err(Error::data(format!(
            "teacher_topk position {position} has {} ids and {} logprobs",
            ids.len(),
            logprobs.len()
        )));
    }
    if let Some(id) = ids.iter().find(|&&id| id as usize >= vocab_size) {
        return Err(Error::data(format!(
            "teacher_topk position {position} has an id outside the vocabulary of {vocab_size}: {id}"
        )));
    }
    let mass: f64 = logprobs.iter().map(|&logp| f64::from(logp).exp()).sum();
    if mass.is_nan() || mass > 1.0 + 5e-3 {
        return Err(Error::data(format!(
            "teacher_topk position {position} has probabilities that sum to {mass:.4}: give natural logarithms"
        )));
    }
    Ok(())
}
