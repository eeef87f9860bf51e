use super::*;
use crate::fields::TopK;
use crate::tokenize::tests::byte_tokenizer;
use crate::tool_call::Formats;

const OPTIONS: Options = Options {
    supervise: Supervise::Last,
    prefix_tokens: 4,
    formats: Formats::HERMES,
    invalid_calls: InvalidCalls::Keep,
    content_tokens: ContentTokens::Escape,
};

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}\
    {% for c in m.tool_calls or [] %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
const TOOLS: &str = r#"[{"name":"add","description":"","parameters":{"type":"object","properties":{"a":{"type":"integer"},
    "b":{"type":"integer"}},"required":["a","b"]}}]"#;
const CALL: &str = "So: <tool_call>\n{\"name\": \"add\", \"arguments\": {\"a\": 1, \"b\": 22}}\n</tool_call>";

fn record() -> Record {
    Record {
        line: 7,
        prompt: Some("the prompt ".to_owned()),
        teacher_text: Some(CALL.to_owned()),
        tools: Some(TOOLS.to_owned()),
        metadata: "{}".to_owned(),
        ..Record::default()
    }
}

fn rows(record: &Record, supervise: Supervise) -> Result<Vec<Row>> {
    let tokenizer = byte_tokenizer(&[]);
    let template = ChatTemplate::new(CHATML, None, &[]).unwrap();
    Annotator::new(&tokenizer, &template, Options { supervise, ..OPTIONS })?.annotate(record)
}

fn text(row: &Row, span: &Span) -> String {
    byte_tokenizer(&[]).decode(&row.ids[span.start as usize..span.end as usize])
}

fn texts(row: &Row, spans: &[Span]) -> Vec<String> {
    spans.iter().map(|span| text(row, span)).collect()
}

#[test]
fn spans_cover_a_call_and_its_parts() {
    let rows = rows(&record(), Supervise::Last).unwrap();
    let row = &rows[0];
    assert_eq!(rows.len(), 1);
    assert_eq!(text(row, &row.response), format!("{CALL}<|im_end|>"));
    assert_eq!(texts(row, &row.spans.tool_call), [&CALL[4..]]);
    assert_eq!(texts(row, &row.spans.tool_name), ["add"]);
    assert_eq!(texts(row, &row.spans.tool_args), [r#"{"a": 1, "b": 22}"#]);
    assert_eq!(texts(row, &row.spans.arg_keys), ["a", "b"]);
    assert_eq!(texts(row, &row.spans.arg_values), ["1", "22"]);
    assert_eq!(texts(row, &row.spans.turn_end), ["<|im_end|>"]);
    assert!(row.tool_should_be_used && row.required_fields_present);
    assert_eq!(row.teacher_prefix_ids.len(), 4);
    assert_eq!(row.validated_arguments.as_deref(), Some(r#"{"a": 1, "b": 22}"#));
    assert_eq!(row.teacher_length as usize, row.response.len());
}

#[test]
fn a_call_that_lacks_a_required_argument_is_seen() {
    let lacking = CALL.replace(", \"b\": 22", "");
    let given = Record { teacher_text: Some(lacking), tool_should_be_used: Some(true), ..record() };
    for should in [Some(true), None] {
        let row = rows(&Record { tool_should_be_used: should, ..given.clone() }, Supervise::Last)
            .unwrap()
            .remove(0);
        assert!(row.tool_should_be_used && !row.required_fields_present && !row.call_valid);
        assert_eq!(row.validated_arguments, None);
    }
    let tokenizer = byte_tokenizer(&[]);
    let template = ChatTemplate::new(CHATML, None, &[]).unwrap();
    let rejecting = Options { invalid_calls: InvalidCalls::Reject, ..OPTIONS };
    let error = Annotator::new(&tokenizer, &template, rejecting).unwrap().annotate(&given).unwrap_err();
    assert!(error.message.contains("breaks its tool's schema (add: "), "{error}");
    assert!(error.message.contains("the argument \"b\" is missing"), "{error}");
}

#[test]
fn an_answer_that_was_cut_has_no_turn_end() {
    let cut = Record { finish_reason: Some("length".to_owned()), ..record() };
    let row = rows(&cut, Supervise::Last).unwrap().remove(0);
    assert_eq!(text(&row, &row.response), CALL);
    assert!(row.spans.turn_end.is_empty());
}

#[test]
fn a_different_truth_is_a_second_row() {
    let message = r#"{"role":"assistant","content":null,"tool_calls":[{"type":"function","function":{"name":"add","arguments":{"a":1,"b":2}}}]}"#;
    let both = Record { truth_message: Some(message.to_owned()), ..record() };
    let found = rows(&both, Supervise::Last).unwrap();
    assert_eq!([found[0].source, found[1].source], [Source::Teacher, Source::Truth]);
    assert_eq!(texts(&found[1], &found[1].spans.arg_values), ["1", "2"]);
    let same = Record { truth_text: Some(CALL.to_owned()), ..record() };
    assert_eq!(rows(&same, Supervise::Last).unwrap().len(), 1);
}

fn conversation() -> Record {
    let messages = r#"[{"role":"system","content":"S"},{"role":"user","content":"u1"},{"role":"assistant","content":"a1"},
        {"role":"user","content":"u2"},{"role":"assistant","content":"a2"},{"role":"tool","content":"t2"},{"role":"user","content":"u3"}]"#;
    Record {
        prompt: None,
        messages: Some(messages.to_owned()),
        teacher_text: Some("a3".to_owned()),
        ..record()
    }
}

#[test]
fn all_assistant_turns_are_supervised_on_demand_and_nothing_else() {
    let row = rows(&conversation(), Supervise::All).unwrap().remove(0);
    assert_eq!(texts(&row, &row.supervised), ["a1<|im_end|>", "a2<|im_end|>", "a3<|im_end|>"]);
    let last = rows(&conversation(), Supervise::Last).unwrap().remove(0);
    assert_eq!(texts(&last, &last.supervised), ["a3<|im_end|>"]);
    assert_eq!(last.ids, row.ids);
}

#[test]
fn middle_turns_may_be_dropped_in_whole_groups() {
    let row = rows(&conversation(), Supervise::Last).unwrap().remove(0);
    let turn = |role: &str, content: &str| format!("<|im_start|>{role}\n{content}<|im_end|>\n");
    let first = turn("user", "u1") + &turn("assistant", "a1");
    let second = turn("user", "u2") + &turn("assistant", "a2") + &turn("tool", "t2");
    assert_eq!(texts(&row, &row.drop_groups), [first, second]);
}

#[test]
fn no_group_is_dropped_where_the_template_moves_things() {
    // The tools stand in the first user turn: without it they would be gone.
    let template =
        CHATML.replace("{{ m.content", "{% if loop.first %}{{ tools | tojson }}{% endif %}{{ m.content");
    let tokenizer = byte_tokenizer(&[]);
    let template = ChatTemplate::new(&template, None, &[]).unwrap();
    let messages = r#"[{"role":"user","content":"u1"},{"role":"assistant","content":"a1"},{"role":"user","content":"u2"}]"#;
    let record = Record { messages: Some(messages.to_owned()), ..conversation() };
    let row = Annotator::new(&tokenizer, &template, OPTIONS).unwrap().annotate(&record).unwrap().remove(0);
    assert_eq!(row.drop_groups, []);
}

#[test]
fn lost_bytes_reject_an_answer_and_flag_a_prompt() {
    let tokenizer = byte_tokenizer(b"Q");
    let template = ChatTemplate::new(CHATML, None, &[]).unwrap();
    let annotator = Annotator::new(&tokenizer, &template, OPTIONS).unwrap();
    let lossy = Record { prompt: Some("a Q".to_owned()), ..record() };
    assert!(annotator.annotate(&lossy).unwrap()[0].prompt_lossy);
    let error =
        annotator.annotate(&Record { teacher_text: Some("ab Q".to_owned()), ..record() }).unwrap_err();
    assert!(error.message.contains("its byte 3"), "{error}");
}

#[test]
fn a_given_mask_is_kept_and_must_fit() {
    let count = rows(&record(), Supervise::Last).unwrap()[0].response.len();
    let mut mask = vec![1; count];
    mask[0] = 0;
    let row =
        rows(&Record { teacher_attention_mask: Some(mask), ..record() }, Supervise::Last).unwrap().remove(0);
    assert_eq!(row.teacher_length as usize, count - 1);
    assert_eq!(row.teacher_attention_mask.unwrap().len(), row.ids.len());
    let error =
        rows(&Record { teacher_attention_mask: Some(vec![1; 3]), ..record() }, Supervise::Last).unwrap_err();
    assert!(error.message.ends_with("found 3"), "{error}");
}

#[test]
fn topk_must_have_one_list_a_token() {
    let short = Record { teacher_text: Some("ab".to_owned()), ..record() };
    let topk = |count| TopK { ids: vec![vec![97, 98]; count], logprobs: vec![vec![-0.5, -2.0]; count] };
    let with = |count| rows(&Record { teacher_topk: Some(topk(count)), ..short.clone() }, Supervise::Last);
    assert_eq!(with(3).unwrap()[0].topk.as_ref().unwrap().ids.len(), 3);
    assert_eq!(with(2).unwrap()[0].topk.as_ref().unwrap().ids[2], [0; 0]);
    assert!(with(5).unwrap_err().message.contains("found 5"));
}

#[test]
fn a_template_without_a_special_turn_end_is_refused() {
    let tokenizer = byte_tokenizer(&[]);
    let template =
        ChatTemplate::new("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None, &[])
            .unwrap();
    let error = Annotator::new(&tokenizer, &template, OPTIONS).unwrap_err();
    assert!(error.message.contains("special token"), "{error}");
}
