"""What was seen: access logs and kernel events -> Flow; ring, filters, printers, Hubble API."""
