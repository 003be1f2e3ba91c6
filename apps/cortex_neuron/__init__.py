"""The daemon on each machine: knows the hardware, runs inference, loads and unloads models."""
