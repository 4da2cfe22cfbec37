"""What accounts of the reference network do: they come, write everything that there is, and write on."""

from __future__ import annotations

from tests.e2e.network import FOLLOW, LIKE, POST, PROFILE, Account, Ledger, ReferenceNetwork


def sign_up(network: ReferenceNetwork, ledger: Ledger, count: int) -> list[Account]:
    """Accounts spread over the network's PDSs in turn."""
    accounts = [Account(network.pds[number % len(network.pds)], ledger) for number in range(count)]
    for account in accounts:
        account.create()
    return accounts


def live_a_little(account: Account, friend: Account) -> None:
    """Every kind of write, in several collections."""
    account.put(PROFILE, "self", "create", displayName="first")
    post = account.add(POST, text="hello")
    account.add(LIKE, subject={"uri": f"at://{friend.did}/{POST}/{post}", "cid": account.cid_of(POST, post)})
    follow = account.add(FOLLOW, subject=friend.did)
    account.put(PROFILE, "self", "update", displayName="second")
    account.add_many(50)
    account.remove(POST, post)
    account.remove(FOLLOW, follow)


def write_on(account: Account, count: int) -> None:
    for number in range(count):
        account.add(POST, text=f"post {number} around the crash")
