"""The objects that checks look at, each made once, when it is first needed."""
