"""Plumbing that knows elements and nothing of pipelines: buffers, valves, fused runs, fans, sources."""
