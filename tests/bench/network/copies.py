"""Accounts that do what a template does: much traffic of many accounts for the price of a signature an event.

A tree knows nothing of the account that it belongs to, so that the commits of one repository, with another DID and
another signature, are as valid as those of a second one. Each commit of a template is made once, when the first account
gets to it; for an account its DID, signature, CID and `seq` are put in place of the template's. Used by `traffic`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import cbor2

from tests.support.blocks import cbor, cid_of
from tests.support.repo import RepoBuilder, SigningKey, Write

SEQ = 0x7FFFFFFF


class Step(NamedTuple):
    """One commit of a template: its frame, its signed and unsigned object, and what in them is to be replaced."""

    rev: str
    frame: bytes
    unsigned: bytes
    signed: bytes
    signature: bytes


class Template:
    """A repository, `writes` of its next commit, and its commits up to now."""

    def __init__(self, repo: RepoBuilder, writes: Callable[[], list[Write]]) -> None:
        self.repo = repo
        self._writes = writes
        self._steps: list[Step] = []

    def commit(self, number: int, did: str, key: SigningKey, seq: int) -> tuple[str, bytes]:
        """The rev and the frame of commit `number`, from 0, as the account `did` makes it."""
        while number >= len(self._steps):
            self._steps.append(self._next())
        step, old, new = self._steps[number], self.repo.did.encode(), did.encode()
        signature = key.sign(step.unsigned.replace(old, new))
        signed = step.signed.replace(old, new).replace(step.signature, signature)
        frame = (
            step.frame.replace(old, new)
            .replace(step.signature, signature)
            .replace(cid_of(step.signed), cid_of(signed))
            .replace(b"cseq" + cbor(SEQ), b"cseq" + cbor(seq))
        )
        return step.rev, frame

    def _next(self) -> Step:
        commit = self.repo.commit(*self._writes())
        fields = cbor2.loads(self.repo.head_block)
        signature = fields.pop("sig")
        return Step(self.repo.rev, commit.frame(SEQ), cbor(fields), self.repo.head_block, signature)
