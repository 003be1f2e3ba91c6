"""GGUF models through llama.cpp, each in a child process of its own."""
