"""The Open Inference Protocol (KServe's second): tensors over HTTP."""
