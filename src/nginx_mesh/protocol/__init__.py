"""What travels between a sidecar and its node: the state, the control socket, questions and reports."""
