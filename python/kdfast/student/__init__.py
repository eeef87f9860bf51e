"""The student: a Hugging Face causal language model of the Llama family."""

from kdfast.pretrained import resolve_device
from kdfast.student.build import build_student, chosen_layers, keep_layers, load_student
from kdfast.student.estimate import activation_bytes, estimate
from kdfast.student.logits import hidden_and_head, hidden_states, right_padded_width, supervised_logits
from kdfast.student.save import save_student, write_student
from kdfast.student.vocabulary import check_vocabulary, read_pieces

__all__ = [
    "activation_bytes",
    "build_student",
    "check_vocabulary",
    "chosen_layers",
    "estimate",
    "hidden_and_head",
    "hidden_states",
    "keep_layers",
    "load_student",
    "read_pieces",
    "resolve_device",
    "right_padded_width",
    "save_student",
    "supervised_logits",
    "write_student",
]
