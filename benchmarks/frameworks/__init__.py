"""Comparison with PyTorch and ONNX Runtime on one GPU or CPU: training, SSIM, inference."""
