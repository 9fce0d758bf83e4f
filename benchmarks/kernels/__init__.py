"""The parts of benchmarks.python_kernels, one question a file."""
