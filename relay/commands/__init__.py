"""The subcommands of `relay`, as click commands by their names; `relay.cli` says which module has which.

Imported by `relay.cli` only when called. They hold no logic of the relay: they ask its admin API, or call a function
of the room that has it, and show the answer.
"""
