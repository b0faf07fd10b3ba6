"""Test kit: a scripted runtime, fake upstreams, conformance helpers."""
