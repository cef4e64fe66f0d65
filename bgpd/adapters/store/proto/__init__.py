"""etcd v3 on the wire: our own declarations of the calls and messages we use, and what protoc makes of them."""
