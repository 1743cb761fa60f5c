"""What our own proxies are told and tell: protos, and the code that `make protos` makes of them."""
