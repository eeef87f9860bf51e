"""A model named by the user, loaded, with its tokenizer and the prompts that it shall answer."""

from kdfast.recipes.first_look.of_model import model_folder
from kdfast.recipes.loaded_model.model import LoadedModel, load
from kdfast.recipes.loaded_model.records import read_records
from kdfast.recipes.loaded_model.runtime import Runtime, open_runtime

__all__ = ["LoadedModel", "Runtime", "load", "model_folder", "open_runtime", "read_records"]
