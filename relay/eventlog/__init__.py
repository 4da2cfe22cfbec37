"""The log on disk: segments, their index, records, the writer, the reader, the high-water mark, repair, retention.

It must not know what is in a frame, who reads, or that SQL exists.
"""
