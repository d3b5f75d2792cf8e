"""Latency, throughput and memory of models, told side by side."""
