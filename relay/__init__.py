"""A full-network relay of the AT Protocol. docs/design.md says how its rooms are laid out."""
