"""How a message's text becomes a WebSocket frame: as it is, compressed by permessage-deflate, or as a frame of zstd
with the operator's dictionary.

Chosen for each consumer by its request, in `routes`. An encoding keeps nothing from one message to the next, so that a
frame is made once for all consumers who have it. Must not know of messages or sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import zstandard

from relay.kit.errors import ConfigError
from relay.net.websocket import FIN, TEXT, binary_frame, text_frame
from relay.net.websocket_deflate import deflated_frame

# A dictionary of zstd begins with this, and then its id.
_MAGIC = b"\x37\xa4\x30\xec"
MAX_DICTIONARY_BYTES = 4 << 20
LEVEL = 3


class Encoding(NamedTuple):
    """Equal names are equal encodings. `frame` makes a whole frame of a text in UTF-8."""

    name: str
    frame: Callable[[bytes], bytes]


PLAIN = Encoding("plain", text_frame)
DEFLATED = Encoding("deflate", lambda text: deflated_frame(text, FIN | TEXT))


def zstd_with(path: Path) -> Encoding:
    """Binary frames, each of them one frame of zstd that was made with the dictionary at `path`. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_DICTIONARY_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"RELAY_JSON_ZSTD_DICTIONARY: {error}") from None
    if not data.startswith(_MAGIC) or len(data) > MAX_DICTIONARY_BYTES:
        raise ConfigError(f"RELAY_JSON_ZSTD_DICTIONARY: {path} is not a zstd dictionary")
    try:
        dictionary = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_FULLDICT)
        dictionary.precompute_compress(level=LEVEL)
        compressor = zstandard.ZstdCompressor(dict_data=dictionary, level=LEVEL)
        compressor.compress(b"{}")
    except zstandard.ZstdError as error:
        raise ConfigError(f"RELAY_JSON_ZSTD_DICTIONARY: {path}: {error}") from None
    return Encoding("zstd", lambda text: binary_frame(compressor.compress(text)))
