"""The readable reference backend: plain PyTorch, BF16 or fp32, one device or tensor-parallel under torchrun."""
