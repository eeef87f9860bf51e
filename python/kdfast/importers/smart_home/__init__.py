"""A smart home's commands: the templates of `home-assistant-intents`, filled with the names of one home.

The package (Apache-2.0, by the project Home Assistant) holds, for each language, templates such as
`turn on [the] {name}` and the call that each means. They were written by people; nobody recorded them being said.
"""
