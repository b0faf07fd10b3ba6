"""Runtime plugin for mistral.rs: GGUF and safetensors on CPU and GPU."""
