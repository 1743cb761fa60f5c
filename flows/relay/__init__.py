"""Many nodes' flows as one stream: Hubble's relay (facts 2.4), also beside the stock one."""
