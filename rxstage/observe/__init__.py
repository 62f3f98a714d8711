"""What an execution lets be seen: events, logs, metrics, traces."""
