"""The subcommands of `relay`, one module each, with its click command as `command`.

Imported by `relay.cli` only when called. They hold no logic of the relay: they ask its admin API, or call a function
of the room that has it, and show the answer.
"""
