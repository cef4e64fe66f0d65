"""IPAM's operations on the store. Each reads, decides by ``core/ipam`` and commits one transaction; each may be repeated.

What they raise: Transient (call again), Malformed (a stored value that cannot be used; its key and defect are named). Expected
answers are values: Refused says why.

* ``claim.claim_block(store, pool, node, *, room, reclaims, limit) -> Prefix | Refused``
* ``assign.assign(store, AddressRequest) -> Granted | Refused``: N addresses of each family, idempotent by handle
* ``assign.assign_at(store, AddressRequest, address) -> Address | Refused``: this very address
* ``assign.assign_address(store, node, handle_id, attrs, pool_name) -> Address | Refused``: one IPv4 address
* ``release.release(store, [Release(address, handle_id, sequence)]) -> Released | Refused``: block by block
* ``release.release_whole(store, [Release]) -> Released | Refused``: all of them in one transaction, or none
* ``release.release_handle(store, handle_id)``, ``release.release_node(store, node) -> Released | Refused``
* ``release.release_block(store, cidr, node, *, require_empty, sequence, min_age_s) -> Refused | None``: end an affinity
* ``release.locate(store, addresses) -> {address: block}``: in which stored block an address is
* ``reading.Attempt``: what one attempt has read, and the comparisons it makes of that; ``transact`` around it
* ``target.ClaimTarget``, ``target.ReleaseTarget``: what the daemon's reconcilers apply
"""
