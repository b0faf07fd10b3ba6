"""Runtime plugin for TensorRT: plans, and ONNX models made into plans, on GPUs."""
