"""From a model's logits to an answer: what engines of our own have in common.

An engine that is given a prompt and gives logits (ONNX Runtime, llama.cpp) needs
the same around it: chat templates, sampling, stop strings, text from tokens.  A
plugin imports it when it opens a runner; some of it needs numpy or Jinja, which the
base install does not have.
"""
