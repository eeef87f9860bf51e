"""Does a model call tools rightly? Greedy answers to held-out prompts, scored one by one."""

from kdfast.evaluate.evaluation import Answer, EvalPrompt, Evaluation, evaluate
from kdfast.evaluate.generate import Decoding, generate

__all__ = ["Answer", "Decoding", "EvalPrompt", "Evaluation", "evaluate", "generate"]
