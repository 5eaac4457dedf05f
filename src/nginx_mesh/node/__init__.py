"""What runs on a pod's node: its sidecar's state is pushed from here."""
