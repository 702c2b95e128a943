"""PyTorch modules, read from the ATen operations that `torch.export` keeps."""
