"""Who an account is and which host speaks for it."""

from __future__ import annotations

from typing import Any

from relay.atproto.events import Identity
from relay.conformance.identities import SigningKey, did_document, legacy_document
from relay.conformance.repository import Repository
from relay.conformance.scenario import must, must_not
from relay.conformance.scenarios.signatures import rotate
from relay.conformance.stage import Account, Stage, new_did
from relay.conformance.verdict import Broken, NotOffered


def refuses_account(stage: Stage, account: Account, what: str) -> None:
    """Send a first commit, which must not pass."""
    account.send(account.repo.commit(account.repo.create()))
    stage.quiet(account.host)
    stage.nothing_of(account.did, what)


@must("identity-known")
def a_new_account_passes(stage: Stage) -> None:
    stage.account()


@must_not("identity-known")
def an_account_that_the_directory_does_not_know_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    del stage.directory.documents[account.did]
    refuses_account(stage, account, "a commit of a DID that is not registered")


@must_not("identity-known")
def an_account_with_a_tombstone_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    stage.directory.gone.add(account.did)
    refuses_account(stage, account, "a commit of a DID that is gone")


@must_not("identity-known")
def an_account_without_a_signing_key_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    stage.directory.documents[account.did]["verificationMethod"] = []
    refuses_account(stage, account, "a commit of an account without a signing key")


@must_not("identity-known")
def an_account_with_the_document_of_another_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    stage.directory.documents[account.did]["id"] = new_did()
    refuses_account(stage, account, "a commit of an account whose document is another's")


@must_not("authority")
def a_commit_from_another_host_is_passed(stage: Stage) -> None:
    account = stage.account()
    elsewhere = next(host for host in stage.hosts if host is not account.host)
    event = account.repo.commit(account.repo.create())
    elsewhere.send(event.frame)
    stage.quiet(elsewhere)
    stage.not_passed(event, "a commit from a host that is not the account's")


@must_not("authority")
def a_new_account_from_another_host_is_passed(stage: Stage) -> None:
    account = stage.account(known=False)
    elsewhere = next(host for host in stage.hosts if host is not account.host)
    elsewhere.send(account.repo.commit(account.repo.create()).frame)
    stage.quiet(elsewhere)
    stage.nothing_of(account.did, "an unknown account's commit from a host that is not its own")


@must("authority")
def an_account_that_moved_passes_from_its_new_host(stage: Stage) -> None:
    account = stage.account()
    account.host = next(host for host in stage.hosts if host is not account.host)
    account.host.statuses[account.did] = {"did": account.did, "active": True}
    stage.directory.documents[account.did] = did_document(account.did, account.repo.key, account.host.url)
    stage.sends(account, account.repo.commit(account.repo.create()))


@must_not("authority")
def a_former_host_says_that_an_account_is_deleted(stage: Stage) -> None:
    account = stage.account()
    former = account.host
    account.host = next(host for host in stage.hosts if host is not former)
    account.host.statuses[account.did] = {"did": account.did, "active": True}
    stage.directory.documents[account.did] = did_document(account.did, account.repo.key, account.host.url)
    stage.sends(account, account.repo.commit(account.repo.create()))
    former.send(lambda seq: account.repo.account_frame(seq, active=False, status="deleted"))
    stage.quiet(former)
    stage.sends(account, account.repo.commit(account.repo.create()))


@must("key-forms")
def a_key_in_the_older_form_passes(stage: Stage) -> None:
    stage.account(document=legacy_document)


@must("key-forms")
def a_p256_key_in_the_older_form_passes(stage: Stage) -> None:
    stage.account(curve="p256", document=legacy_document)


@must("key-forms")
def a_key_with_a_relative_id_passes(stage: Stage) -> None:
    def relative(did: str, key: SigningKey, pds: str) -> dict[str, Any]:
        document = did_document(did, key, pds)
        document["verificationMethod"][0]["id"] = "#atproto"
        return document

    stage.account(document=relative)


@must_not("key-forms")
def a_key_of_another_purpose_is_taken(stage: Stage) -> None:
    account = stage.account(known=False)
    stage.directory.documents[account.did]["verificationMethod"][0]["id"] = f"{account.did}#atproto_label"
    refuses_account(stage, account, "a commit of a key that is not `#atproto`")


@must("did-methods", own_host=True)
def a_did_web_passes(stage: Stage) -> None:
    host = stage.own_host()
    did = f"did:web:localhost%3A{host.port}"
    account = stage.account(host, did=did, known=False)
    host.web_documents[did] = did_document(did, account.repo.key, host.url)
    event = account.repo.commit(account.repo.create())
    asked = host.requests
    account.send(event)
    stage.quiet(host)
    if not stage.commits(did) and host.requests == asked:
        raise NotOffered("did:web of localhost is not looked up, which is for tests alone")
    stage.passes(event, "a commit of a did:web")


@must_not("did-methods")
def a_did_web_with_a_path_is_passed(stage: Stage) -> None:
    host = stage.hosts[0]
    refuses_account(stage, stage.account(host, did="did:web:example.com:user", known=False), "a did:web with a path")


@must_not("did-methods")
def a_did_of_another_method_is_passed(stage: Stage) -> None:
    host = stage.hosts[0]
    repo = Repository(f"did:key:{SigningKey().multikey}", SigningKey())
    refuses_account(stage, Account(repo, host), "a did:key")


@must("identity-event")
def an_identity_event_passes(stage: Stage) -> None:
    account = stage.account()
    stage.identity_comes(account)


@must("identity-event")
def the_key_is_read_again_after_an_identity_event(stage: Stage) -> None:
    account = stage.account()
    rotate(stage, account)
    asked = stage.directory.asked[account.did]
    stage.identity_comes(account)
    stage.sends(account, account.repo.commit(account.repo.create()))
    if stage.directory.asked[account.did] == asked:
        raise Broken("the directory was not asked again")


@must_not("identity-event")
def the_old_key_is_taken_after_an_identity_event(stage: Stage) -> None:
    account = stage.account()
    old = rotate(stage, account)
    stage.identity_comes(account)
    stage.refuses(account, account.repo.commit(account.repo.create(), key=old), "a commit of the old key")


@must_not("identity-event")
def a_handle_that_is_not_the_accounts_is_passed(stage: Stage) -> None:
    account = stage.account()
    account.send(lambda seq: account.repo.identity_frame(seq, handle="somebody-else.test"))
    stage.settled(account)
    told = [event.handle for event in stage.firehose.events(account.did) if isinstance(event, Identity)]
    if "somebody-else.test" in told:
        raise Broken("a handle that the account does not have is passed on")
