"""The collection index where events do not say: asking hosts, and importing another relay's index.

It must not touch the path of events; its SQL is in `store`.
"""
