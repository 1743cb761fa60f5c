"""Learned names: which addresses they have, what that makes of an address, and the way into the kernel."""
