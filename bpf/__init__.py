"""What the kernel does: C programs, map layouts, desired versus realised entries, loader, attachment, events."""
