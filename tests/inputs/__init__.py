"""Inputs that several tests, the benchmarks and the checks share. They import torch alone."""
