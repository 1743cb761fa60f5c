"""What runs in the processes of our own proxies: told by ADS, telling by reports, and what they judge with."""
