"""What an operator can do: each action checks, changes, writes the audit line and tells sibling relays.

The JSON routes and the dashboard call it. It must not know of Flask or pages.
"""
