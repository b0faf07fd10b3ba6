# Read behind llama-cpp-python's own project().  It asks for a library of llama.cpp's
# programs, which its wheel leaves out: a third of what would be compiled.
set(LLAMA_BUILD_COMMON OFF)

# The kernels (ggml-cpu) do the work, and keep their -O3.  What calls them is compiled
# in less than three quarters of the time when its headers are read once and it is
# optimised less.  So is what ggml-base computes itself: it quantises a file, which
# nobody does here, and has the slow references of the kernels, for formats of weights
# that have no fast one on a processor.  So this is not upstream's build: what is measured
# on it is no figure of llama.cpp.  Deferred: these targets are made below.
cmake_language(DEFER CALL target_compile_options llama PRIVATE -O1 -w)
cmake_language(DEFER CALL target_compile_options ggml-base PRIVATE -O1 -w)
cmake_language(DEFER CALL target_precompile_headers llama PRIVATE
  <algorithm> <array> <cinttypes> <fstream> <functional> <future> <map> <memory> <mutex>
  <numeric> <random> <regex> <set> <sstream> <stdexcept> <string> <thread>
  <unordered_map> <unordered_set> <vector>)
