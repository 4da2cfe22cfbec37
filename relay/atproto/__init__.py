"""The AT Protocol as a relay needs it: pure functions over bytes.

No sockets, clocks, threads or SQL, and no gevent: it runs, is fuzzed and is benchmarked under plain CPython.
Every input is taken as hostile; nothing but `errors.ProtocolError` comes out of a function that refuses one.
"""
