"""`kdfast chat`: type to a model, and see its tokens, its calls and their times as they come."""

from kdfast.recipes.chat.run import run

__all__ = ["run"]
