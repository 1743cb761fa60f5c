"""The proxies as processes of their own: found, started, adopted, restarted, stopped."""
