"""What should hold: Kubernetes objects -> checked rules -> identities -> NodePolicy (the IR). Pure but for watch.py."""
