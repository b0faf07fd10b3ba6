"""Requests between nodes: who has which replicas, asking them, and answering."""
