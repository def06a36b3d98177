"""Ours beside PyTorch and ONNX Runtime on one device, GPU or CPU: training, SSIM, inference."""
