"""EXL2, GPTQ and plain models on NVIDIA GPUs, each in a child process of its own."""
