"""Several processes of one service: `supervisor` starts and restarts them, `worker` is the part in each of them."""
