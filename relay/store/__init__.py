"""The relay's SQL: one schema on SQLite and PostgreSQL, and one flat module of functions for each subject.

Every function takes a `Transaction` first and is run by `Database.read` or `Database.write`. Nothing here knows of
frames, sockets or the log beyond its position.
"""
