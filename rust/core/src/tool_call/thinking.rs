//! Thinking blocks: text that a model writes for itself, before or between what it says. A call in it is only a draft.

/// Whether an answer begins inside a thinking block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// The prompt ends with the opening of a block: the answer has only its closing.
    Open,
    #[default]
    Closed,
}

/// The marks around a block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub opening: &'static str,
    pub closing: &'static str,
}

/// The marks that models use: Qwen, `DeepSeek`, GLM and most others; Magistral; Seed-OSS; Command A Reasoning.
pub(super) static BLOCKS: [Block; 4] = [
    Block { opening: "<think>", closing: "</think>" },
    Block { opening: "[THINK]", closing: "[/THINK]" },
    Block { opening: "<seed:think>", closing: "</seed:think>" },
    Block { opening: "<|START_THINKING|>", closing: "<|END_THINKING|>" },
];

impl Thinking {
    /// The state in which the answer to `prompt` begins.
    pub fn after(prompt: &str) -> Self {
        if closing_after(prompt).is_some() { Self::Open } else { Self::Closed }
    }

    /// `None` for another word than `open` and `closed`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "open" => Some(Self::Open),
            "closed" => Some(Self::Closed),
            _ => None,
        }
    }
}

/// What closes the thinking block that `prompt` opens; `None` if it opens none.
pub fn closing_after(prompt: &str) -> Option<&'static str> {
    let prompt = prompt.trim_end();
    BLOCKS.iter().find(|block| prompt.ends_with(block.opening)).map(|block| block.closing)
}

/// Whether `mark`, at byte `at` of an answer, opens a block that ends, or closes one: then a model writes it as a token.
pub fn is_of_block(mark: &str, answer: &str, at: usize) -> bool {
    BLOCKS.iter().any(|block| {
        mark == block.closing || mark == block.opening && answer[at + mark.len()..].contains(block.closing)
    })
}

/// A stretch of text in which nothing counts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Skip {
    /// A thinking block. `None`: the prompt opened it, so that any closing ends it.
    Thinking(Option<&'static Block>),
    /// The rest of a frame that broke. Its closing ends it, and so does the opening of a further frame or of a block.
    Rest(&'static str),
}

/// Where a stretch ends.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Its last byte is before this place; the text goes on here.
    At(usize),
    /// Not before this place, from which more text is to be read.
    After(usize),
}

impl Skip {
    /// Looks for the end in `bytes` from `at` on. `openings` are the texts that open frames.
    pub fn end(self, bytes: &[u8], mut at: usize, openings: &[&str]) -> End {
        let closes = |rest: &[u8]| match self {
            Self::Thinking(Some(block)) => mark(rest, [block.closing]),
            Self::Thinking(None) => mark(rest, BLOCKS.iter().map(|block| block.closing)),
            Self::Rest(closing) => mark(rest, [closing]),
        };
        while let Some(next) = memchr::memchr3(b'<', b'[', b'`', &bytes[at..]) {
            at += next;
            let rest = &bytes[at..];
            let opens = match self {
                Self::Rest(_) => {
                    mark(rest, openings.iter().copied().chain(BLOCKS.iter().map(|block| block.opening)))
                }
                Self::Thinking(_) => Mark::Absent,
            };
            match (closes(rest), opens) {
                (Mark::Whole(length), _) => return End::At(at + length),
                (_, Mark::Whole(_)) => return End::At(at),
                (Mark::Begun, _) | (_, Mark::Begun) => return End::After(at),
                (Mark::Absent, Mark::Absent) => at += 1,
            }
        }
        End::After(bytes.len())
    }
}

pub(super) enum Mark {
    Absent,
    /// The text ends inside it.
    Begun,
    /// It has this many bytes.
    Whole(usize),
}

/// Which of `marks` is at the start of `rest`.
pub(super) fn mark<'m>(rest: &[u8], marks: impl IntoIterator<Item = &'m str>) -> Mark {
    let mut begun = false;
    for mark in marks {
        let mark = mark.as_bytes();
        if rest.starts_with(mark) {
            return Mark::Whole(mark.len());
        }
        begun |= mark.starts_with(rest);
    }
    if begun { Mark::Begun } else { Mark::Absent }
}

/// The opening of a block at the start of `rest`.
pub(super) fn opening(rest: &[u8]) -> Option<&'static Block> {
    BLOCKS.iter().find(|block| rest.starts_with(block.opening.as_bytes()))
}

/// Whether `rest` may become the opening of a block.
pub(super) fn may_open(rest: &[u8]) -> bool {
    BLOCKS.iter().any(|block| block.opening.as_bytes().starts_with(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_says_whether_its_answer_begins_inside_a_block() {
        for (prompt, closing) in [
            ("<|im_start|>assistant\n<think>\n", Some("</think>")),
            ("<|im_start|>assistant\n<think>\n\n</think>\n\n", None),
            ("[INST]x[/INST][THINK]", Some("[/THINK]")),
            ("What does <think> mean?<|im_end|>\n<|im_start|>assistant\n", None),
            ("", None),
        ] {
            assert_eq!(closing_after(prompt), closing, "{prompt}");
        }
        assert_eq!(Thinking::after("<think>\n"), Thinking::Open);
        assert_eq!((Thinking::named("open"), Thinking::named("ajar")), (Some(Thinking::Open), None));
    }

    #[test]
    fn marks_of_whole_blocks_are_no_content() {
        let answer = "<think>a</think>The <think> tag";
        assert!(is_of_block("<think>", answer, 0) && is_of_block("</think>", answer, 8));
        assert!(!is_of_block("<think>", answer, 20) && !is_of_block("<tool_call>", answer, 0));
    }

    #[test]
    fn a_stretch_ends_at_its_closing_or_at_a_further_opening() {
        let end = |skip: Skip, text: &str| skip.end(text.as_bytes(), 0, &["<tool_call>", "[TOOL_CALLS]"]);
        let think = Skip::Thinking(Some(&BLOCKS[0]));
        assert_eq!(end(think, "a [b] </think>c"), End::At(14));
        assert_eq!(end(think, "a [/THINK] <tool_call>"), End::After(22));
        assert_eq!(end(think, "a </thi"), End::After(2));
        assert_eq!(end(Skip::Thinking(None), "a [/THINK]c"), End::At(10));
        let rest = Skip::Rest("</tool_call>");
        assert_eq!(end(rest, "x </tool_call>y"), End::At(14));
        assert_eq!(end(rest, "x </b> [TOOL_CALLS]y"), End::At(7));
        assert_eq!(end(rest, "x <think>y"), End::At(2));
        assert_eq!(end(rest, "x [TOOL"), End::After(2));
        assert_eq!(end(Skip::Rest("```"), "x ```"), End::At(5));
    }
}
