"""Runtime plugin for ONNX Runtime: causal LMs and embeddings on CPU and GPU."""
