# Read behind llama-cpp-python's own project().  It asks for a library of llama.cpp's
# programs, which its wheel leaves out: a third of what would be compiled.
set(LLAMA_BUILD_COMMON OFF)
