"""The shape that nearly every `#commit` frame has, read by patterns: one operation, no blobs, an account of did:plc.

Called by `frames`, which reads all other frames, and whatever is wrong, with the general decoder. The patterns know
every byte that is not a value, and the values' lengths are compared with their heads: what fits is canonical, and has
no field that would have to be dropped.
"""

from __future__ import annotations

import re

from relay.atproto.cid import Cid
from relay.atproto.drisl import head, head_size
from relay.atproto.events import Commit, RepoOp
from relay.atproto.fields import MAX_SEQ
from relay.atproto.syntax import is_datetime

_LINK = rb"\xd8\x2a\x58\x25\x00(\x01[\x55\x71]\x12\x20.{32})"
_TID = rb"\x6d([2-7a-j][2-7a-z]{12})"

# A frame up to the text of the path; from there to the bytes of the blocks; and from there to its end.
_match_start = re.compile(
    rb"\xa2atg#commitbop\x01([\xab\xac])cops\x81([\xa3\xa4])ccid(?:\xf6|%b)dpath\x78([\x18-\xff])" % _LINK, re.DOTALL
).match
_match_middle = re.compile(
    rb"(?:dprev%b)?factionf(create|update|delete)crev%bcseq([\x01-\x17]|\x18.|\x19..|\x1a.{4}|\x1b.{8})"
    rb"drepo\x78\x20(did:plc:[a-z2-7]{24})dtime([\x60-\x77]|\x78.)([0-9T:.Z+-]+)"
    rb"eblobs\x80esince(?:\xf6|%b)fblocks([\x40-\x57]|\x58.|\x59..|\x5a.{4})" % (_LINK, _TID, _TID),
    re.DOTALL,
).match
_match_end = re.compile(
    rb"fcommit%bfrebase([\xf4\xf5])ftooBig([\xf4\xf5])(?:hprevData%b)?" % (_LINK, _LINK), re.DOTALL
).fullmatch


def read(frame: bytes) -> Commit | None:
    """The commit in a frame of the usual shape. None for any other frame, sound or not."""
    start = _match_start(frame)
    if start is None:
        return None
    fields, op_fields, cid, length = start.groups()
    path_at = start.end()
    path_end = path_at + length[0]
    middle = _match_middle(frame, path_end)
    if middle is None:
        return None
    prev, action, rev, seq_bytes, did, time_head, time, since, blocks_head = middle.groups()
    seq, blocks_size = _number(seq_bytes), _number(blocks_head)
    blocks_at = middle.end()
    blocks_end = blocks_at + blocks_size
    end = _match_end(frame, blocks_end)
    if end is None:
        return None
    commit, rebase, too_big, prev_data = end.groups()
    if (
        (op_fields == b"\xa4") != (prev is not None)
        or (fields == b"\xac") != (prev_data is not None)
        or head_size(seq) != len(seq_bytes)
        or seq > MAX_SEQ
        or head_size(blocks_size) != len(blocks_head)
        or head(0x60, len(time)) != time_head
        or not is_datetime(time.decode())
    ):
        return None
    try:
        path = frame[path_at:path_end].decode()
    except UnicodeDecodeError:
        return None
    return Commit(
        did=did.decode(),
        seq=seq,
        time=time.decode(),
        rev=rev.decode(),
        since=since.decode() if since else None,
        commit=Cid(commit),
        prev_data=Cid(prev_data) if prev_data else None,
        blocks=frame[blocks_at:blocks_end],
        ops=(RepoOp(action.decode(), path, Cid(cid) if cid else None, Cid(prev) if prev else None),),
        too_big=too_big == b"\xf5",
        rebase=rebase == b"\xf5",
        frame=frame,
        seq_at=middle.start(4),
    )


def peek(frame: bytes) -> tuple[str, int] | None:
    """The account and `seq` of a frame of the usual shape, read up to its blocks. None for any other frame."""
    start = _match_start(frame)
    middle = _match_middle(frame, start.end() + start[4][0]) if start is not None else None
    if middle is None:
        return None
    seq = _number(middle[4])
    return (middle[5].decode(), seq) if 0 < seq <= MAX_SEQ else None


def _number(encoded: bytes) -> int:
    """The length or number in a head, shortest form or not."""
    return int.from_bytes(encoded[1:]) if len(encoded) > 1 else encoded[0] & 0x1F
